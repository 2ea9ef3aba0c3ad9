-- Clear batches from the bitmap of shards that are not counted yet; drop the bitmap once it is empty.
local stored = KEYS[1]
local batch_indices = ARGV
for _, index in ipairs(batch_indices) do redis.call('SETBIT', stored, index, 0) end
if redis.call('BITCOUNT', stored) == 0 then redis.call('DEL', stored) end
return 1
