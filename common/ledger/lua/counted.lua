-- Note of batches that what the store has of them is counted, or is of no use.
-- KEYS: stored bitmap   ARGV: indices
for _, index in ipairs(ARGV) do redis.call('SETBIT', KEYS[1], index, 0) end
if redis.call('BITCOUNT', KEYS[1]) == 0 then redis.call('DEL', KEYS[1]) end
return 1
