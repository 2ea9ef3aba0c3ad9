-- Returns name, state and creation of every job in turn, newest first.
local jobs = KEYS[1]
local job_key_prefix = ARGV[1]
local found = {}
for _, name in ipairs(redis.call('ZREVRANGE', jobs, 0, -1)) do
  local state, created = unpack(redis.call('HMGET', job_key_prefix .. name, 'state', 'created'))
  if state then
    for _, value in ipairs({ name, state, created }) do table.insert(found, value) end
  end
end
return found
