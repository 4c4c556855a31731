-- Runs commands, exempt from maxmemory. Returns their replies.
local commands_from = 1 -- of each command: the number of its words, then the words

--- @include "allow_oom.lua"

local replies, at = {}, commands_from
while at <= #ARGV do
  local words = tonumber(ARGV[at])
  replies[#replies + 1] = redis.call(unpack(ARGV, at + 1, at + words))
  at = at + words + 1
end
return replies
