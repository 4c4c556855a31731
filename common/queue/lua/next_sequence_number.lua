-- Returns the next sequence number.
local seq_key = KEYS[1]

--- @include "../../redis/lua/allow_oom.lua"
--- @include "next_seq.lua"

return next_seq(seq_key, 1)
