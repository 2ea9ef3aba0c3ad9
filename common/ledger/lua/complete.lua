-- Count a batch's result at a rung: the first report changes the counters, later ones nothing.
-- KEYS: job, done bitmap of the rung, leases, owners, results, attempts, deaths, trails, begun
-- ARGV: batch index, field, status, precision, rows with numbers, rows that are not finite, tokens,
--       milliseconds, result as JSON, owner (or nothing), rung, field of the result whose rows
--       these are (or nothing), rung where rows go on (or nothing), 1 to stop the job, rows given
--       up because they end their process, the result with nothing but those as JSON, creation of
--       the job
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
if ARGV[17] ~= '' and redis.call('HGET', KEYS[1], 'created') ~= ARGV[17] then return 0 end
local holder = redis.call('HGET', KEYS[4], ARGV[2])
if ARGV[3] == 'failed' and ARGV[10] ~= '' and holder ~= ARGV[10] then return 0 end
redis.call('ZREM', KEYS[3], ARGV[2])
redis.call('HDEL', KEYS[4], ARGV[2])
-- Of rows that this ledger sent nowhere: it was made anew, and begins with the rung before.
if ARGV[12] ~= '' then
  local before = redis.call('HGET', KEYS[5], ARGV[12])
  if not before or cjson.decode(before).next ~= ARGV[11] then return 0 end
end
if redis.call('SETBIT', KEYS[2], ARGV[1], 1) == 1 then return 0 end
for key = 6, 8 do redis.call('HDEL', KEYS[key], ARGV[2]) end

local function count(name, by)
  if tonumber(by) > 0 then redis.call('HINCRBY', KEYS[1], name, by) end
end
local failed, first, last = ARGV[3] == 'failed', ARGV[12] == '', ARGV[13] == ''
if first then redis.call('SETBIT', KEYS[9], ARGV[1], 1) end
count('batches_' .. ARGV[3], 1)
count('batches_at_' .. ARGV[11], 1)
count('embedded_at_' .. ARGV[11], ARGV[5])
count('unstable_at_' .. ARGV[11], ARGV[6])
count('rows_' .. ARGV[4], ARGV[5])
count(last and 'rows_quarantined' or first and 'rows_retried' or 'rows_retried_again', ARGV[6])
count('rows_quarantined', ARGV[15])
count('tokens_done', ARGV[7])
count('milliseconds', ARGV[8])
if failed or tonumber(ARGV[6]) > 0 then redis.call('HSET', KEYS[5], ARGV[2], ARGV[9]) end
if tonumber(ARGV[15]) > 0 then redis.call('HSET', KEYS[5], ARGV[2] .. '.poison', ARGV[16]) end
-- A result whose rows have gone through the next rung has nothing more to say.
if not failed and not first then redis.call('HDEL', KEYS[5], ARGV[12]) end

if last then redis.call('HINCRBY', KEYS[1], 'batches_done', 1) end
local state, done, all = unpack(redis.call('HMGET', KEYS[1], 'state', 'batches_done', 'batches'))
if state == 'open' and tonumber(done or 0) == tonumber(all) then
  redis.call('HSET', KEYS[1], 'state', 'finished')
end
if state == 'open' and ARGV[14] == '1' then redis.call('HSET', KEYS[1], 'state', 'stopped') end
return 1
