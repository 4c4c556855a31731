-- Lists ended tasks of one state and collection, the newest first. Returns rows of an id and the values of its fields.
-- Unless it is the last page, it also returns the minute and the position of the last scanned task.
local task_prefix = ARGV[1]
local ended_tasks_prefix = ARGV[2]
local default_collection = ARGV[3]
local state = ARGV[4]
local collection = ARGV[5]
local minute = ARGV[6] -- of the last scanned task; on the first page the newest, or '+inf'
local position = tonumber(ARGV[7]) -- in the list of its minute; -1 for the first page, from the end
local limit = tonumber(ARGV[8])
local max_scanned = tonumber(ARGV[9])
local filepath_prefix = ARGV[10] -- '' for any
local batch = ARGV[11] -- '' for any
local request_id = ARGV[12] -- '' for any
local oldest = ARGV[13] -- minute: no earlier task is listed
local fields_from = 14
local code, former_code = '', ''

--- @include "task_filter.lua"

local index, rows, scanned = ended_tasks_prefix .. state, {}, 0
for _, each in ipairs(redis.call('ZREVRANGEBYSCORE', index, minute, oldest)) do
  local key = index .. ':' .. each
  local last = each == minute and position >= 0 and position - 1 or redis.call('LLEN', key) - 1
  local first = math.max(0, last - (max_scanned - scanned) + 1)
  local ids = last >= 0 and redis.call('LRANGE', key, first, last) or {}
  for i = #ids, 1, -1 do
    local row = row_of(ids[i])
    scanned = scanned + 1
    if row then rows[#rows + 1] = row end
    if #rows == limit or scanned == max_scanned then return {rows, each, first + i - 1} end
  end
end
return {rows}
