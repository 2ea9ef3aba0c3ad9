-- Free a lock that one of these holders has. Returns 1 if one of them had it.
local lock, holders = KEYS[1], ARGV
local current = redis.call('GET', lock)
for _, holder in ipairs(holders) do
  if current == holder then return redis.call('DEL', lock) end
end
return 0
