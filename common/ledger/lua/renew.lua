-- Prolong a lease that is still its owner's, of a job that was not cancelled.
-- KEYS: leases, owners, job   ARGV: field, owner, lease seconds
if redis.call('HGET', KEYS[3], 'state') == 'cancelled' then return 0 end
if redis.call('HGET', KEYS[2], ARGV[1]) ~= ARGV[2] then return 0 end
local now = tonumber(redis.call('TIME')[1])
redis.call('ZADD', KEYS[1], now + ARGV[3], ARGV[1])
return 1
