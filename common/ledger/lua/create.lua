-- Begin a job, unless it is known already; what is known of an earlier staging of it is forgotten.
-- KEYS: jobs, job, stored bitmap, what else is kept beside its hash
-- ARGV: name, creation, the stored bitmap (or nothing), the hash's other fields
if redis.call('HGET', KEYS[2], 'created') == ARGV[2] then return 0 end
for key = 2, #KEYS do redis.call('DEL', KEYS[key]) end
redis.call('HSET', KEYS[2], 'created', ARGV[2], unpack(ARGV, 4))
if ARGV[3] ~= '' then redis.call('SET', KEYS[3], ARGV[3]) end
redis.call('ZADD', KEYS[1], ARGV[2], ARGV[1])
return 1
