-- A job at one moment: its counters and its live leases.
-- KEYS: job, leases
local now = redis.call('TIME')[1]
return { redis.call('HGETALL', KEYS[1]), redis.call('ZCOUNT', KEYS[2], now, '+inf') }
