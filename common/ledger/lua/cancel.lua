-- Cancel a job that is open, being staged, or stopped. Returns its state afterwards.
local job = KEYS[1]
local state = redis.call('HGET', job, 'state')
if state == 'open' or state == 'staging' or state == 'stopped' then
  state = 'cancelled'
  local now = string.format('%d.%06d', unpack(redis.call('TIME')))
  redis.call('HSET', job, 'state', state, 'ended', now)
end
return state
