-- Note what a batch's owner is about to do with it, for whoever has it next if that ends the
-- process.
-- KEYS: owners, trails   ARGV: field, owner, trail as JSON
if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then return 0 end
redis.call('HSET', KEYS[2], ARGV[1], ARGV[3])
return 1
