-- Note that a job's first batches have been published, up to but without a number.
-- KEYS: job   ARGV: number, creation of the job
if redis.call('HGET', KEYS[1], 'created') ~= ARGV[2] then return 0 end
if tonumber(ARGV[1]) <= tonumber(redis.call('HGET', KEYS[1], 'published') or 0) then return 0 end
redis.call('HSET', KEYS[1], 'published', ARGV[1])
return 1
