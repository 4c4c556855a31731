-- Ends a request that added tasks to a batch. Returns the number of dropped callbacks: 0 or 1.
local callback_due_key = KEYS[1]
local callback_bytes_key = KEYS[2]
local callback_counts_key = KEYS[3]
local callback_oldest_key = KEYS[4]
local batch_ends_key = KEYS[5]
local batch_requests_key = KEYS[6]
local task_prefix = ARGV[1]
local batch_prefix = ARGV[2]
local callback_ends_prefix = ARGV[3]
local callback_delivery_prefix = ARGV[4]
local finished_keep_s = tonumber(ARGV[5])
local failed_keep_s = tonumber(ARGV[6])
local max_callback_bytes = tonumber(ARGV[7])
local delivery_size = tonumber(ARGV[8])
local linger_ms = tonumber(ARGV[9])
local batch_linger_ms = tonumber(ARGV[10])
local batch_queue = ARGV[11]
local ended_fields = ARGV[12]
local rate_window_ms = tonumber(ARGV[13])
local batch = ARGV[14]
local request = ARGV[15]

--- @include "../../redis/lua/allow_oom.lua"
--- @include "../../redis/lua/now_ms.lua"
--- @include "batch_ends.lua"
--- @include "batch_requests.lua"

remove_request(batch, request)
return end_batch(batch, now_ms())
