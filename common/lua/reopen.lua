-- Take a failed result back, so that its batch can be tried again.
-- KEYS: job, done bitmap of the rung, results, attempts   ARGV: batch index, field
if redis.call('HDEL', KEYS[3], ARGV[2]) == 0 then return 0 end
redis.call('SETBIT', KEYS[2], ARGV[1], 0)
redis.call('HDEL', KEYS[4], ARGV[2])
redis.call('HINCRBY', KEYS[1], 'batches_failed', -1)
redis.call('HINCRBY', KEYS[1], 'batches_done', -1)
redis.call('HSET', KEYS[1], 'state', 'open')
return 1
