-- Changes counters of a batch whose work is not in tasks of its own. Returns whether the batch exists.
local batch_prefix = ARGV[1]
local rate_window_ms = tonumber(ARGV[2])
local batch = ARGV[3]
local step = ARGV[4] -- a name of this call: a repeated call changes nothing
local changes_from = 5 -- of each counter: name, change

--- @include "../../redis/lua/allow_oom.lua"
--- @include "../../redis/lua/now_ms.lua"
--- @include "batch_counts.lua"
--- @include "batch_rate.lua"

local key, changes = batch_prefix .. batch, {}
if redis.call('EXISTS', key) == 0 then return 0 end
if redis.call('HGET', key, 'step') == step then return 1 end
redis.call('HSET', key, 'step', step)
for i = changes_from, #ARGV, 2 do changes[ARGV[i]] = tonumber(ARGV[i + 1]) end
count_in_batch(batch, changes)
note_rate(key, now_ms())
return 1
