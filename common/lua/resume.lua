-- Note what is to be done about instability from now on, and take back a stop or a cancellation:
-- what was published until then may be gone, and is published again. Returns 1 if there was one.
-- KEYS: job   ARGV: retry or fail
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
redis.call('HSET', KEYS[1], 'on_instability', ARGV[1])
local state, done, all = unpack(redis.call('HMGET', KEYS[1], 'state', 'batches_done', 'batches'))
if state ~= 'stopped' and state ~= 'cancelled' then return 0 end
local finished = tonumber(done or 0) == tonumber(all)
redis.call('HSET', KEYS[1], 'state', finished and 'finished' or 'open', 'published', 0)
return 1
