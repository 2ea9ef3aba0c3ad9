-- Take a result back as if it had never been counted, so that its batch can be tried again.
-- KEYS and ARGV: as of complete.lua
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
if ARGV[17] ~= '' and redis.call('HGET', KEYS[1], 'created') ~= ARGV[17] then return 0 end
if redis.call('SETBIT', KEYS[2], ARGV[1], 0) == 0 then return 0 end
redis.call('HDEL', KEYS[5], ARGV[2], ARGV[2] .. '.poison')
for key = 6, 8 do redis.call('HDEL', KEYS[key], ARGV[2]) end

local function uncount(name, by)
  if tonumber(by) > 0 then redis.call('HINCRBY', KEYS[1], name, -by) end
end
local first, last = ARGV[12] == '', ARGV[13] == ''
uncount('batches_' .. ARGV[3], 1)
uncount('batches_at_' .. ARGV[11], 1)
uncount('embedded_at_' .. ARGV[11], ARGV[5])
uncount('unstable_at_' .. ARGV[11], ARGV[6])
uncount('rows_' .. ARGV[4], ARGV[5])
uncount(last and 'rows_quarantined' or first and 'rows_retried' or 'rows_retried_again', ARGV[6])
uncount('rows_quarantined', ARGV[15])
uncount('tokens_done', ARGV[7])
if last then redis.call('HINCRBY', KEYS[1], 'batches_done', -1) end
if redis.call('HGET', KEYS[1], 'state') ~= 'cancelled' then
  redis.call('HSET', KEYS[1], 'state', 'open')
end
return 1
