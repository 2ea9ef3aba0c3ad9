-- Take a lock that is free, or renew the holder's own. Returns 1 if the holder has it now.
local lock = KEYS[1]
local holder, seconds = ARGV[1], ARGV[2]
local standby_prefix = ARGV[3]  -- of holders that give way to this one, or ''
local current = redis.call('GET', lock)
local gives_way = standby_prefix ~= '' and current
  and string.sub(current, 1, #standby_prefix) == standby_prefix
if current and current ~= holder and not gives_way then return 0 end
redis.call('SET', lock, holder, 'EX', seconds)
return 1
