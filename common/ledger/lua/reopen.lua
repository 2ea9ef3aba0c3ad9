-- Take a result back as if it had never been counted, so that its batch can be tried again.
-- KEYS and ARGV are named in counting.lua.
if not is_current() then return 0 end
if redis.call('SETBIT', done, result.index, 0) == 0 then return 0 end
redis.call('HDEL', results, field, field .. '.poison')
forget_attempts()
count(-1)
local state = redis.call('HGET', job, 'state')
if state ~= 'cancelled' and state ~= 'staging' then redis.call('HSET', job, 'state', 'open') end
if state == 'finished' or state == 'stopped' then
  redis.call('HDEL', job, 'ended', 'started', 'tokens_at_start')
end
return 1
