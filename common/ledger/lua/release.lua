-- End a lease without a result, if its owner still has it.
local leases, owners, attempts, crashes = unpack(KEYS)
local field, owner = ARGV[1], ARGV[2]
local reason = ARGV[3]  -- interrupted: no attempt, failed: an attempt, crashed: also a crash
if redis.call('HGET', owners, field) ~= owner then return 0 end
redis.call('ZREM', leases, field)
redis.call('HDEL', owners, field)
if reason == 'interrupted' then redis.call('HINCRBY', attempts, field, -1) end
if reason == 'crashed' then redis.call('HINCRBY', crashes, field, 1) end
return 1
