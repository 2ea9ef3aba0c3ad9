-- Count a batch's result at a rung: the first report changes the counters, later ones nothing.
-- KEYS: job, done bitmap of the rung, leases, owners, results
-- ARGV: batch index, field, status, precision, rows with numbers, rows without, tokens,
--       milliseconds, result as JSON, owner (or nothing)
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
local holder = redis.call('HGET', KEYS[4], ARGV[2])
if ARGV[3] == 'failed' and holder and ARGV[10] ~= '' and holder ~= ARGV[10] then return 0 end
redis.call('ZREM', KEYS[3], ARGV[2])
redis.call('HDEL', KEYS[4], ARGV[2])
if redis.call('SETBIT', KEYS[2], ARGV[1], 1) == 1 then return 0 end

local function count(name, by) redis.call('HINCRBY', KEYS[1], name, by) end
count('batches_' .. ARGV[3], 1)
if tonumber(ARGV[5]) > 0 then count('rows_' .. ARGV[4], ARGV[5]) end
count('rows_unstable', ARGV[6])
count('tokens_done', ARGV[7])
count('milliseconds', ARGV[8])
if ARGV[3] ~= 'ok' then redis.call('HSET', KEYS[5], ARGV[2], ARGV[9]) end

local time = redis.call('TIME')
redis.call('HSETNX', KEYS[1], 'first_done', time[1])
redis.call('HSET', KEYS[1], 'last_done', time[1])
count('batches_done', 1)
local state, done, all = unpack(redis.call('HMGET', KEYS[1], 'state', 'batches_done', 'batches'))
if state == 'open' and tonumber(done) == tonumber(all) then
  redis.call('HSET', KEYS[1], 'state', 'finished')
end
return 1
