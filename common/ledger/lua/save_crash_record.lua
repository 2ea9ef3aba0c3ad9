-- Save the crash record of a batch, if its owner still has the lease.
local owners, crash_records = KEYS[1], KEYS[2]
local field, owner, record = ARGV[1], ARGV[2], ARGV[3]
if redis.call('HGET', owners, field) ~= owner then return 0 end
redis.call('HSET', crash_records, field, record)
return 1
