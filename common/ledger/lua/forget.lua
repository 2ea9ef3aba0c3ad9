-- Forget a job, unless another staging of it is known. Returns 1 if it was forgotten.
local jobs, job = KEYS[1], KEYS[2]
local name, created = ARGV[1], ARGV[2]  -- created: '' for any staging
local only_closed = ARGV[3] == '1'
local known, state = unpack(redis.call('HMGET', job, 'created', 'state'))
if created ~= '' and known ~= created then return 0 end
local is_closed = state == 'cancelled' or state == 'stopped' or state == 'finished'
if only_closed and not is_closed then return 0 end
for key = 2, #KEYS do redis.call('DEL', KEYS[key]) end
redis.call('ZREM', jobs, name)
return 1
