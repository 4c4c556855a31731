-- Removes tasks from the deferred ones that are not open: a worker of an earlier version has ended them. Returns their
-- number.
local open_key = KEYS[1]
local deferred_key = KEYS[2]
local deferred_by_host_key = KEYS[3]
local task_prefix = ARGV[1]
local ids_from = 2

--- @include "../../redis/lua/allow_oom.lua"
--- @include "deferred_tasks.lua"

local removed = 0
for i = ids_from, #ARGV do
  local id = ARGV[i]
  if not redis.call('ZSCORE', open_key, id) then
    remove_deferred(id, redis.call('HGET', task_prefix .. id, 'host'))
    removed = removed + 1
  end
end
return removed
