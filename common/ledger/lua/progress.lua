-- A job at one moment: its counters, its live leases, and its published batches that nobody has
-- begun.
-- KEYS: job, leases, begun bitmap
local now = redis.call('TIME')[1]
local published = tonumber(redis.call('HGET', KEYS[1], 'published') or 0)
-- By bytes, and the last few by bits: Redis counts a range of bits only since 7.0.
local bytes = math.floor(published / 8)
local begun = bytes == 0 and 0 or redis.call('BITCOUNT', KEYS[3], 0, bytes - 1)
for bit = 8 * bytes, published - 1 do begun = begun + redis.call('GETBIT', KEYS[3], bit) end
return {
  redis.call('HGETALL', KEYS[1]),
  redis.call('ZCOUNT', KEYS[2], now, '+inf'),
  published - begun,
}
