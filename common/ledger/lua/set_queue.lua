-- Set the queue of a job's first rung, which has its priority in its name, and note that it was
-- changed. Returns 0 if this staging of the job is not known.
local job = KEYS[1]
local created, queue = ARGV[1], ARGV[2]
if redis.call('HGET', job, 'created') ~= created then return 0 end
redis.call('HSET', job, 'queue', queue, 'queue_changed', 1)
return 1
