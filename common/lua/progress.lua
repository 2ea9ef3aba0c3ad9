-- A job at one moment: its counters, its live leases, and its published batches that nobody has
-- begun.
-- KEYS: job, leases, begun bitmap
local now = redis.call('TIME')[1]
local published = tonumber(redis.call('HGET', KEYS[1], 'published') or 0)
-- In whole bytes: the cursor is a multiple of eight, or at the end.
local begun = published == 0 and 0
  or redis.call('BITCOUNT', KEYS[3], 0, math.ceil(published / 8) - 1)
return {
  redis.call('HGETALL', KEYS[1]),
  redis.call('ZCOUNT', KEYS[2], now, '+inf'),
  published - begun,
}
