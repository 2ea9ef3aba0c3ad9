-- Renew a lease that its owner still has, unless the job was cancelled.
local leases, owners, job = unpack(KEYS)
local field, owner, lease_seconds = ARGV[1], ARGV[2], ARGV[3]
if redis.call('HGET', job, 'state') == 'cancelled' then return 0 end
if redis.call('HGET', owners, field) ~= owner then return 0 end
local now = tonumber(redis.call('TIME')[1])
redis.call('ZADD', leases, now + lease_seconds, field)
return 1
