-- All jobs, newest first: name, state and creation, one after the other.
-- KEYS: jobs   ARGV: what a job's key begins with
local found = {}
for _, job in ipairs(redis.call('ZREVRANGE', KEYS[1], 0, -1)) do
  local state, created = unpack(redis.call('HMGET', ARGV[1] .. job, 'state', 'created'))
  if state then
    for _, value in ipairs({ job, state, created }) do table.insert(found, value) end
  end
end
return found
