-- Returns the entries of workers. None stays longer than its time, if Redis's clock was set back.
local seconds = tonumber(ARGV[1])
for _, key in ipairs(KEYS) do
  if redis.call('PTTL', key) > 1000 * seconds then redis.call('EXPIRE', key, seconds) end
end
return redis.call('MGET', unpack(KEYS))
