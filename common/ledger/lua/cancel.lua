-- Give out no more of a job's batches, until it is resumed. Returns the state that it is in then.
-- KEYS: job
local state = redis.call('HGET', KEYS[1], 'state')
if state == 'open' or state == 'stopped' then
  state = 'cancelled'
  redis.call('HSET', KEYS[1], 'state', state)
end
return state
