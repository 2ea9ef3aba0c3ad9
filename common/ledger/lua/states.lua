-- Returns name, state and creation of every job in turn, newest first; of a job under whose name
-- there is no hash, '' for both.
local jobs = KEYS[1]
local job_key_prefix = ARGV[1]
local found = {}
for _, name in ipairs(redis.call('ZREVRANGE', jobs, 0, -1)) do
  local fields = redis.pcall('HMGET', job_key_prefix .. name, 'state', 'created')
  if fields.err then fields = { '', '' } end
  if fields[1] then
    for _, value in ipairs({ name, fields[1], fields[2] or '' }) do table.insert(found, value) end
  end
end
return found
