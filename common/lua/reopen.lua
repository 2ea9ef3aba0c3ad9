-- Take a failed result back, so that its batch can be tried again.
-- KEYS: job, done bitmap of the rung, results, attempts   ARGV: batch index, field, rung
local result = redis.call('HGET', KEYS[3], ARGV[2])
if not result or cjson.decode(result).status ~= 'failed' then return 0 end
redis.call('HDEL', KEYS[3], ARGV[2])
redis.call('SETBIT', KEYS[2], ARGV[1], 0)
redis.call('HDEL', KEYS[4], ARGV[2])
redis.call('HINCRBY', KEYS[1], 'batches_failed', -1)
redis.call('HINCRBY', KEYS[1], 'batches_at_' .. ARGV[3], -1)
redis.call('HINCRBY', KEYS[1], 'batches_done', -1)
if redis.call('HGET', KEYS[1], 'state') ~= 'cancelled' then
  redis.call('HSET', KEYS[1], 'state', 'open')
end
return 1
