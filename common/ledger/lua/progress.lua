-- Returns a job's counters, its live leases, its published batches that no worker has claimed, and the
-- time. A lease that seems to last longer than any is one from before Redis's clock was set back.
local job, leases, begun = unpack(KEYS)
local lease_seconds = ARGV[1]
local time = redis.call('TIME')
local now = tonumber(time[1])
local published = tonumber(redis.call('HGET', job, 'published') or 0)
-- Whole bytes first, then the remaining bits: BITCOUNT takes a range of bits only since Redis 7.0.
local bytes = math.floor(published / 8)
local begun_count = bytes == 0 and 0 or redis.call('BITCOUNT', begun, 0, bytes - 1)
for bit = 8 * bytes, published - 1 do
  begun_count = begun_count + redis.call('GETBIT', begun, bit)
end
return {
  redis.call('HGETALL', job),
  redis.call('ZCOUNT', leases, now, now + lease_seconds),
  published - begun_count,
  string.format('%d.%06d', unpack(time)),
}
