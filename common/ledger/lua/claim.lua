-- Claim a batch at a rung, unless it is done or leased to another owner.
-- Returns the outcome, the attempts so far with this one, the crashes so far, and the owner of the
-- expired lease that this claim replaces, or ''.
local job, done, leases, owners, attempts, crashes, begun = unpack(KEYS)
local batch_index, field, owner, weights, lease_seconds = unpack(ARGV, 1, 5)
local created = ARGV[6]  -- of the job that the message is of, or ''
local is_first_rung = ARGV[7] == '1'
local model_digest = ARGV[8]  -- of the files with the weights, or ''

local function refuse(outcome) return { outcome, 0, 0, '' } end
if redis.call('EXISTS', job) == 0 then return refuse('unknown') end
-- A message of an earlier staging of the same job may describe another batch.
if created ~= '' and redis.call('HGET', job, 'created') ~= created then return refuse('unknown') end
local batches = tonumber(redis.call('HGET', job, 'batches') or '')
if not batches or tonumber(batch_index) >= batches then return refuse('unknown') end
local state = redis.call('HGET', job, 'state')
if state == 'cancelled' or state == 'stopped' then return refuse(state) end
if redis.call('GETBIT', done, batch_index) == 1 then return refuse('done') end

local time = redis.call('TIME')
local now = tonumber(time[1])
local expiry = tonumber(redis.call('ZSCORE', leases, field) or 0)
if expiry > now + lease_seconds then  -- Redis's clock was set back
  expiry = now + lease_seconds
  redis.call('ZADD', leases, expiry, field)
end
local holder = redis.call('HGET', owners, field)
if expiry > now and holder ~= owner then return refuse('held') end

-- A job of other files than this worker loaded: they were changed, or differ between machines.
local asked = redis.call('HGET', job, 'model_digest')
if asked and model_digest ~= '' and asked ~= model_digest then return refuse('other_weights') end
-- The first claim of a job fixes the weights that all its embeddings come from.
redis.call('HSETNX', job, 'weights', weights)
if redis.call('HGET', job, 'weights') ~= weights then return refuse('other_weights') end

local previous_owner = ''
if holder and holder ~= owner then
  previous_owner = holder
  redis.call('HINCRBY', job, 'leases_lost', 1)
  redis.call('HINCRBY', crashes, field, 1)
end
-- When the job began, or went on, and the tokens done by then: its speed is counted from there.
if redis.call('HSETNX', job, 'started', string.format('%d.%06d', unpack(time))) == 1 then
  redis.call('HSET', job, 'tokens_at_start', redis.call('HGET', job, 'tokens_done') or 0)
end
redis.call('ZADD', leases, now + lease_seconds, field)
redis.call('HSET', owners, field, owner)
if is_first_rung then redis.call('SETBIT', begun, batch_index, 1) end
-- A claim that its owner repeats is one attempt.
if expiry <= now then redis.call('HINCRBY', attempts, field, 1) end
return {
  'taken',
  tonumber(redis.call('HGET', attempts, field)),
  tonumber(redis.call('HGET', crashes, field) or 0),
  previous_owner,
}
