-- Record that a job's first batches, up to but not including a number, have been published.
local job = KEYS[1]
local published, created = ARGV[1], ARGV[2]
if redis.call('HGET', job, 'created') ~= created then return 0 end
if tonumber(published) <= tonumber(redis.call('HGET', job, 'published') or 0) then return 0 end
redis.call('HSET', job, 'published', published)
return 1
