-- Marks the failed ones among these tasks as without an upload, so that they are not opened again. Returns their ids.
local task_prefix = ARGV[1]
local ids_from = 2

--- @include "../../redis/lua/allow_oom.lua"

local evicted = {}
for i = ids_from, #ARGV do
  local id, key = ARGV[i], task_prefix .. ARGV[i]
  if redis.call('HGET', key, 'state') == 'failed' then
    redis.call('HSET', key, 'emptied', 1)
    evicted[#evicted + 1] = id
  end
end
return evicted
