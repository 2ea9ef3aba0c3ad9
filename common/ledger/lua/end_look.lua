-- Record that a store's jobs are in the ledger, unless Redis was emptied since the look at the store
-- began, or another look has begun.
local look, kept = KEYS[1], KEYS[2]
local token, store = ARGV[1], ARGV[2]
if redis.call('GET', look) ~= token then return 0 end
redis.call('DEL', look)
redis.call('SET', kept, store)
return 1
