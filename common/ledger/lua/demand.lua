-- Count the batches that are left of all open jobs, by pool, and keep the numbers for some seconds.
-- A batch is left until its last rung has a result: queued, leased, lost, or not published yet.
-- Returns whether the numbers are known, and the stores that have a keeper. They are not known if the
-- jobs of one of these stores, or of one that the caller knows of, may not be: no keeper has looked for
-- them in the life of this Redis.
local jobs, stores, demand = KEYS[1], KEYS[2], KEYS[3]
local job_key_prefix, kept_key_prefix = ARGV[1], ARGV[2]
local seconds, store_seconds = ARGV[3], tonumber(ARGV[4])
local known = cjson.decode(ARGV[5])  -- stores that the caller knows of, its own among them
local priority_prefixes = { unpack(ARGV, 6) }  -- of queues

local function pool_of(queue)
  for _, prefix in ipairs(priority_prefixes) do
    if string.sub(queue, 1, #prefix) == prefix then return string.sub(queue, #prefix + 1) end
  end
  return queue
end

local now = tonumber(redis.call('TIME')[1])
-- Redis's clock may have been set back.
local found = redis.call('ZRANGEBYSCORE', stores, now - store_seconds, now + store_seconds)
for _, list in ipairs({ known, found }) do
  for _, store in ipairs(list) do
    if redis.call('EXISTS', kept_key_prefix .. store) == 0 then
      redis.call('DEL', demand)
      return { 0, found }
    end
  end
end
local pools = {}
for _, name in ipairs(redis.call('ZRANGE', jobs, 0, -1)) do
  local key = job_key_prefix .. name
  local fields = redis.pcall('HMGET', key, 'state', 'queue', 'batches', 'batches_done')
  local is_open = not fields.err and (fields[1] == 'open' or fields[1] == 'staging')
  if is_open and fields[2] then
    local left = (tonumber(fields[3] or '') or 0) - (tonumber(fields[4] or '') or 0)
    if not (left >= 1 and left < 2 ^ 53) then left = 1 end
    local pool = pool_of(fields[2])
    pools[pool] = (pools[pool] or 0) + left
  end
end
redis.call('DEL', demand)
redis.call('HSET', demand, '', 0)  -- a hash without fields would be no key
for pool, batches in pairs(pools) do
  redis.call('HSET', demand, pool, string.format('%d', batches))
end
redis.call('EXPIRE', demand, seconds)
return { 1, found }
