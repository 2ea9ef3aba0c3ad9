-- Clear batches from the bitmap of shards that are not counted yet; drop the bitmap once it is empty.
local job, stored = KEYS[1], KEYS[2]
local created = ARGV[1]
if redis.call('HGET', job, 'created') ~= created then return 0 end
for _, index in ipairs({ unpack(ARGV, 2) }) do redis.call('SETBIT', stored, index, 0) end
if redis.call('BITCOUNT', stored) == 0 then redis.call('DEL', stored) end
return 1
