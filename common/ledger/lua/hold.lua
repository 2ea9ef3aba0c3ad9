-- Take a lock that is free, or renew the holder's own. Returns 1 if the holder has it now.
local lock, latest = KEYS[1], KEYS[2]  -- latest: the key that says who took the lock last; nil: none does
local holder, seconds = ARGV[1], tonumber(ARGV[2])
local standby_prefix = ARGV[3]  -- of holders that give way to this one, or ''
local is_renewal = ARGV[4] == '1'  -- then it must not have been another's meanwhile
local latest_seconds = ARGV[5]
-- Redis's clock may have been set back.
local left = redis.call('PTTL', lock)
if left == -1 or left > 1000 * seconds then redis.call('EXPIRE', lock, seconds) end
local current = redis.call('GET', lock)
local gives_way = standby_prefix ~= '' and current
  and string.sub(current, 1, #standby_prefix) == standby_prefix
if current and current ~= holder and not gives_way then return 0 end
if is_renewal and (redis.call('GET', latest) or holder) ~= holder then return 0 end
redis.call('SET', lock, holder, 'EX', seconds)
if latest then redis.call('SET', latest, holder, 'EX', latest_seconds) end
return 1
