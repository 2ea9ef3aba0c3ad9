-- Count a batch's result at its rung: the first report changes the counters, later ones nothing.
-- KEYS and ARGV are named in counting.lua.
if not is_current() then return 0 end
-- One who counts what the store has may be late: the shard may be gone, to be computed again.
local only_stored = ARGV[3] == '1'
if only_stored and redis.call('GETBIT', stored, result.index) == 0 then return 0 end
local failed = result.status == 'failed'
if failed and owner ~= '' and redis.call('HGET', owners, field) ~= owner then return 0 end
redis.call('ZREM', leases, field)
redis.call('HDEL', owners, field)
-- A retry counts only if its rows are outstanding: a rebuilt ledger waits for the rung before.
if not is_first_rung then
  local previous = redis.call('HGET', results, field_at(result.after))
  if not previous or cjson.decode(previous).next ~= result.rung then return 0 end
end
if redis.call('SETBIT', done, result.index, 1) == 1 then return 0 end
forget_attempts()
if is_first_rung then redis.call('SETBIT', begun, result.index, 1) end
count(1)
add('milliseconds', math.floor(1000 * result.seconds + 0.5))

-- The worker's own text is stored: cjson would write other numbers, and {} for an empty array.
if failed or #result.unstable > 0 then redis.call('HSET', results, field, text) end
if #result.poisoned > 0 then redis.call('HSET', results, field .. '.poison', text) end
-- The result of the rung before is settled by this one.
if not failed and not is_first_rung then redis.call('HDEL', results, field_at(result.after)) end

local state, batches_done, batches = unpack(
  redis.call('HMGET', job, 'state', 'batches_done', 'batches'))
if state ~= 'open' and state ~= 'staging' then return 1 end
local before = state
if state == 'open' and tonumber(batches_done or 0) == tonumber(batches) then state = 'finished' end
if result.stops_job then state = 'stopped' end
if state ~= before then
  redis.call('HSET', job, 'ended', string.format('%d.%06d', unpack(redis.call('TIME'))))
end
redis.call('HSET', job, 'state', state)
return 1
