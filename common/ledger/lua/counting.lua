-- The beginning of complete.lua and reopen.lua: the result, and the counters it adds to.
local job, done, leases, owners, results, attempts, crashes, crash_records, begun, stored =
  unpack(KEYS)
local text, owner = ARGV[1], ARGV[2]  -- the result as JSON; the lease's owner, or ''

local result = cjson.decode(text)
local function given(value) return value ~= nil and value ~= cjson.null end
local function field_at(rung) return string.format('%d.%s', result.index, rung) end

local field = field_at(result.rung)
local is_first_rung, is_last_rung = not given(result.after), not given(result.next)

-- Whether the job is known, and the result is not of an earlier staging of the same name.
local function is_current()
  local created = redis.call('HGET', job, 'created')
  return created and (not given(result.created) or tonumber(created) == result.created)
end

local function forget_attempts()
  redis.call('HDEL', attempts, field)
  redis.call('HDEL', crashes, field)
  redis.call('HDEL', crash_records, field)
end

local function add(name, number)
  if number ~= 0 then redis.call('HINCRBY', job, name, number) end
end

-- Count the result (sign 1), or take it out of the counters again (sign -1). Left out are the
-- milliseconds of device time, which complete.lua alone adds: they were spent in either case.
local function count(sign)
  local unstable = is_last_rung and 'rows_quarantined'
    or is_first_rung and 'rows_retried'
    or 'rows_retried_again'
  local precision = given(result.precision) and result.precision or 'none'
  add('batches_' .. result.status, sign)
  add('batches_at_' .. result.rung, sign)
  add('embedded_at_' .. result.rung, sign * result.records)
  add('unstable_at_' .. result.rung, sign * #result.unstable)
  add('rows_' .. precision, sign * result.records)
  add(unstable, sign * #result.unstable)
  add('rows_quarantined', sign * #result.poisoned)
  add('tokens_done', sign * result.tokens)
  if is_last_rung then add('batches_done', sign) end
end

