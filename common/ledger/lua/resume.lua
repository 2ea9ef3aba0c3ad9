-- Have a job go on: what was published of it until now may be gone, and is published again; a stop or
-- a cancellation is taken back.
-- KEYS: job   ARGV: what is to be done about instability from now on: retry or fail
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
redis.call('HSET', KEYS[1], 'on_instability', ARGV[1], 'published', 0)
local state, done, all = unpack(redis.call('HMGET', KEYS[1], 'state', 'batches_done', 'batches'))
if state == 'open' or state == 'finished' then return 0 end
local finished = tonumber(done or 0) == tonumber(all)
redis.call('HSET', KEYS[1], 'state', finished and 'finished' or 'open')
return 1
