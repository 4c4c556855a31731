-- Records the heartbeat of a worker, and removes dead workers. Its first write frees memory, so a full Redis runs it.
local workers_key = KEYS[1]
local watched_workers_key = KEYS[2]
local alive_ms = tonumber(ARGV[1]) -- time after a heartbeat during which a worker counts as alive
local keep_ms = tonumber(ARGV[2]) -- time after which a dead worker is forgotten that no other has looked for
local name = ARGV[3]

--- @include "../../redis/lua/now_ms.lua"

local now = now_ms()
redis.call('ZREMRANGEBYSCORE', workers_key, '-inf', now - alive_ms)
-- Written before the clock was set back.
redis.call('ZREMRANGEBYSCORE', workers_key, now + alive_ms, '+inf')
redis.call('ZADD', workers_key, now, name)
redis.call('PEXPIRE', workers_key, alive_ms)
redis.call('ZADD', watched_workers_key, now, name)
redis.call('PEXPIRE', watched_workers_key, keep_ms)
