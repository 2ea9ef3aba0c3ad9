-- Fix the weights that a job's embeddings come from, unless they are fixed, or this staging of it is
-- not known.
local job = KEYS[1]
local created, weights = ARGV[1], ARGV[2]
if redis.call('HGET', job, 'created') ~= created then return 0 end
return redis.call('HSETNX', job, 'weights', weights)
