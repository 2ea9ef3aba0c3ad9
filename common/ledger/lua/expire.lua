-- Take back the leases that ran out; returns each one's field and owner, one after the other.
-- KEYS: job, leases, owners, deaths
local now = redis.call('TIME')[1]
local lost = {}
for _, field in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now)) do
  table.insert(lost, field)
  table.insert(lost, redis.call('HGET', KEYS[3], field) or '')
  redis.call('ZREM', KEYS[2], field)
  redis.call('HDEL', KEYS[3], field)
  redis.call('HINCRBY', KEYS[4], field, 1)
  redis.call('HINCRBY', KEYS[1], 'leases_lost', 1)
end
return lost
