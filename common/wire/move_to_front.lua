-- Have the last messages of a queue be the next to be taken, in their order.
-- Sent twice, as many others go before them: none is lost, and all are taken sooner or later.
-- KEYS: queue   ARGV: how many
for _ = 1, math.min(ARGV[1], redis.call('LLEN', KEYS[1])) do
  redis.call('LMOVE', KEYS[1], KEYS[1], 'LEFT', 'RIGHT')
end
return 1
