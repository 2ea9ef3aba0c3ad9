-- Remove the expired leases of a job. Returns field and owner of each, in turn.
local job, leases, owners, crashes = unpack(KEYS)
local lease_seconds = ARGV[1]
local now = tonumber(redis.call('TIME')[1])
local latest = now + lease_seconds
-- No lease lasts longer from now on: Redis's clock was set back.
for _, field in ipairs(redis.call('ZRANGEBYSCORE', leases, '(' .. latest, '+inf')) do
  redis.call('ZADD', leases, latest, field)
end
local expired = {}
for _, field in ipairs(redis.call('ZRANGEBYSCORE', leases, '-inf', now)) do
  table.insert(expired, field)
  table.insert(expired, redis.call('HGET', owners, field) or '')
  redis.call('ZREM', leases, field)
  redis.call('HDEL', owners, field)
  redis.call('HINCRBY', crashes, field, 1)
  redis.call('HINCRBY', job, 'leases_lost', 1)
end
return expired
