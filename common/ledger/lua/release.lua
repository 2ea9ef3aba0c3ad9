-- Give a lease back without a result.
-- KEYS: leases, owners, attempts, deaths
-- ARGV: field, owner, why: 'interrupted' is no attempt, 'failed' is one, 'crashed' ended its process
if redis.call('HGET', KEYS[2], ARGV[1]) ~= ARGV[2] then return 0 end
redis.call('ZREM', KEYS[1], ARGV[1])
redis.call('HDEL', KEYS[2], ARGV[1])
if ARGV[3] == 'interrupted' then redis.call('HINCRBY', KEYS[3], ARGV[1], -1) end
if ARGV[3] == 'crashed' then redis.call('HINCRBY', KEYS[4], ARGV[1], 1) end
return 1
