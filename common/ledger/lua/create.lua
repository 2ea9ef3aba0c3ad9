-- Create a job, unless this staging of it is known, or a later one; an earlier one is forgotten.
local jobs, job, stored = KEYS[1], KEYS[2], KEYS[3]
local name, created, stored_bitmap = ARGV[1], ARGV[2], ARGV[3]
local other_fields = { unpack(ARGV, 4) }
local known = redis.call('HGET', job, 'created')
if known and tonumber(known) >= tonumber(created) then return 0 end
-- From the job's hash on, every key is a part of the job.
for key = 2, #KEYS do redis.call('DEL', KEYS[key]) end
redis.call('HSET', job, 'created', created, unpack(other_fields))
if stored_bitmap ~= '' then redis.call('SET', stored, stored_bitmap) end
redis.call('ZADD', jobs, created, name)
return 1
