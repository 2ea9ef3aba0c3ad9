-- Add batches to a job that is being staged; with the last ones it is open, or finished.
-- One that was stopped or cancelled meanwhile stays so: it has all batches if it is resumed.
-- Returns its state; false if this staging of it is not known. A job that is staged stays as it is.
local job = KEYS[1]
local created, is_whole = ARGV[1], ARGV[2] == '1'
local totals = { unpack(ARGV, 3) }  -- fields and values
local known, state = unpack(redis.call('HMGET', job, 'created', 'state'))
if known ~= created then return false end
local is_staged = state == 'open' or state == 'finished'
if is_whole or not is_staged then redis.call('HSET', job, unpack(totals)) end
if not is_whole or state ~= 'staging' then return state end
local batches_done, batches = unpack(redis.call('HMGET', job, 'batches_done', 'batches'))
state = 'open'
if tonumber(batches_done or 0) == tonumber(batches) then
  state = 'finished'
  redis.call('HSET', job, 'ended', string.format('%d.%06d', unpack(redis.call('TIME'))))
end
redis.call('HSET', job, 'state', state)
return state
