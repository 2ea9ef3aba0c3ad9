-- Move messages of a job from one queue to another, where each is written anew, as long as the job is
-- to be in that queue. A message that is no longer there was taken, or moved by another: it is left
-- out. Each is in one of the two queues at any time. Returns the number moved.
local job, from, to = unpack(KEYS)
local job_queue = ARGV[1]
if redis.call('HGET', job, 'queue') ~= job_queue then return 0 end
local moved = 0
for number = 2, #ARGV, 2 do
  local old, new = ARGV[number], ARGV[number + 1]
  -- From the end that workers take from: the callers name the oldest messages first.
  if redis.call('LREM', from, -1, old) == 1 then
    redis.call('LPUSH', to, new)
    moved = moved + 1
  end
end
return moved
