-- Move the messages published last to the end of the list that workers take from, in their order.
-- Run a second time, it moves as many other messages there: no message is lost.
local queue = KEYS[1]
local count = ARGV[1]
for _ = 1, math.min(count, redis.call('LLEN', queue)) do
  redis.call('LMOVE', queue, queue, 'LEFT', 'RIGHT')
end
return 1
