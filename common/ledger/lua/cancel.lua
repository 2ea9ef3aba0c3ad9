-- Cancel a job that is open or stopped. Returns its state afterwards.
local job = KEYS[1]
local state = redis.call('HGET', job, 'state')
if state == 'open' or state == 'stopped' then
  state = 'cancelled'
  redis.call('HSET', job, 'state', state, 'ended', redis.call('TIME')[1])
end
return state
