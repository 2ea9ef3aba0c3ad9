-- Take back the leases that ran out, and say whose batches they were.
-- KEYS: job, leases, owners
local now = redis.call('TIME')[1]
local fields = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now)
for _, field in ipairs(fields) do
  redis.call('ZREM', KEYS[2], field)
  redis.call('HDEL', KEYS[3], field)
  redis.call('HINCRBY', KEYS[1], 'leases_lost', 1)
end
return fields
