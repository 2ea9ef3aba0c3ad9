-- Record that a job's first batches, up to but not including a number, have been published, and the
-- name of the key that signed their messages.
local job = KEYS[1]
local published, created, signed_with = unpack(ARGV)
if redis.call('HGET', job, 'created') ~= created then return 0 end
redis.call('HSET', job, 'signed_with', signed_with)
if tonumber(published) <= tonumber(redis.call('HGET', job, 'published') or 0) then return 0 end
redis.call('HSET', job, 'published', published)
return 1
