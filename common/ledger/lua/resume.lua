-- Resume a job: undo a stop or a cancellation, and have all outstanding batches published again,
-- since messages published so far may be lost. Returns 0 if this staging of it is not known.
local job = KEYS[1]
local on_instability = ARGV[1]  -- from now on: retry or fail
local created = ARGV[2]
if redis.call('HGET', job, 'created') ~= created then return 0 end
redis.call('HSET', job, 'on_instability', on_instability, 'published', 0)
local state, batches_done, batches = unpack(
  redis.call('HMGET', job, 'state', 'batches_done', 'batches'))
if state == 'open' or state == 'staging' or state == 'finished' then return 1 end
local finished = tonumber(batches_done or 0) == tonumber(batches)
redis.call('HSET', job, 'state', finished and 'finished' or 'open')
if not finished then redis.call('HDEL', job, 'ended', 'started', 'tokens_at_start') end
return 1
