-- Counts one more attempt to decode a task's image. Returns the number of unfinished attempts, including this one; 0
-- for an unknown task.
local task_prefix = ARGV[1]
local id = ARGV[2]
local decoded_id = ARGV[3] -- the task whose image this process decoded last; '' for none

--- @include "../../redis/lua/allow_oom.lua"

if decoded_id ~= '' then redis.call('HDEL', task_prefix .. decoded_id, 'risks') end
if redis.call('EXISTS', task_prefix .. id) == 0 then return 0 end
return redis.call('HINCRBY', task_prefix .. id, 'risks', 1)
