-- Resume a job: undo a stop or a cancellation, and have all outstanding batches published again,
-- since messages published so far may be lost.
local job = KEYS[1]
local on_instability = ARGV[1]  -- from now on: retry or fail
if redis.call('EXISTS', job) == 0 then return 0 end
redis.call('HSET', job, 'on_instability', on_instability, 'published', 0)
local state, batches_done, batches = unpack(
  redis.call('HMGET', job, 'state', 'batches_done', 'batches'))
if state == 'open' or state == 'finished' then return 0 end
local finished = tonumber(batches_done or 0) == tonumber(batches)
redis.call('HSET', job, 'state', finished and 'finished' or 'open')
return 1
