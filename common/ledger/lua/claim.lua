-- Take a lease on a batch at a rung, unless it is done or somebody holds it.
-- Returns what became of it, how often this batch was begun so far, how often its worker went
-- away, and who let the lease run out that is taken over here (or nothing).
-- KEYS: job, done bitmap of the rung, leases, owners, attempts, deaths, begun bitmap
-- ARGV: batch index, field, owner, weights fingerprint, lease seconds, creation of the job,
--       1 if this is the batch's first rung
if redis.call('EXISTS', KEYS[1]) == 0 then return { 'unknown', 0, 0, '' } end
-- A message of an earlier staging of the same job may describe a batch that is now another one.
if ARGV[6] ~= '' and redis.call('HGET', KEYS[1], 'created') ~= ARGV[6] then
  return { 'unknown', 0, 0, '' }
end
-- Nor is there a batch beyond the last, whoever says so.
if tonumber(ARGV[1]) >= tonumber(redis.call('HGET', KEYS[1], 'batches')) then
  return { 'unknown', 0, 0, '' }
end
local state = redis.call('HGET', KEYS[1], 'state')
if state == 'cancelled' or state == 'stopped' then return { state, 0, 0, '' } end
if redis.call('GETBIT', KEYS[2], ARGV[1]) == 1 then return { 'done', 0, 0, '' } end

local now = tonumber(redis.call('TIME')[1])
local expiry = tonumber(redis.call('ZSCORE', KEYS[3], ARGV[2]) or 0)
local owner = redis.call('HGET', KEYS[4], ARGV[2])
if expiry > now and owner ~= ARGV[3] then return { 'held', 0, 0, '' } end

-- The first claim of a job decides which weights its numbers come from.
redis.call('HSETNX', KEYS[1], 'weights', ARGV[4])
if redis.call('HGET', KEYS[1], 'weights') ~= ARGV[4] then return { 'other_weights', 0, 0, '' } end

local lost = ''
if owner and owner ~= ARGV[3] then
  lost = owner
  redis.call('HINCRBY', KEYS[1], 'leases_lost', 1)
  redis.call('HINCRBY', KEYS[6], ARGV[2], 1)
end
redis.call('ZADD', KEYS[3], now + ARGV[5], ARGV[2])
redis.call('HSET', KEYS[4], ARGV[2], ARGV[3])
if ARGV[7] == '1' then redis.call('SETBIT', KEYS[7], ARGV[1], 1) end
-- A claim that is sent twice by its owner is one attempt.
if expiry <= now then redis.call('HINCRBY', KEYS[5], ARGV[2], 1) end
return {
  'taken',
  tonumber(redis.call('HGET', KEYS[5], ARGV[2])),
  tonumber(redis.call('HGET', KEYS[6], ARGV[2]) or 0),
  lost,
}
