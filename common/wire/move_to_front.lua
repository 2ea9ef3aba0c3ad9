-- Move the messages published last to where a queue's next are taken, in their order.
-- Run twice, it moves as many others to the front: none is lost, and all are taken in the end.
local queue = KEYS[1]
local count = ARGV[1]
for _ = 1, math.min(count, redis.call('LLEN', queue)) do
  redis.call('LMOVE', queue, queue, 'LEFT', 'RIGHT')
end
return 1
