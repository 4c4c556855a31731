-- Lists tasks of one state and collection, the newest first. Returns rows of an id and the values of its fields. Unless
-- it is the last page, it also returns the score and the id of the last scanned task.
local state_key = KEYS[1]
local task_prefix = ARGV[1]
local default_collection = ARGV[2]
local state = ARGV[3]
local collection = ARGV[4]
local score = ARGV[5] -- of the last scanned task; '' for the first page
local id = ARGV[6] -- of the last scanned task; '' for the first page
local limit = tonumber(ARGV[7])
local max_scanned = tonumber(ARGV[8])
local code = ARGV[9] -- '' for any
local former_code = ARGV[10] -- the name of `code` in earlier versions; '' for none
local filepath_prefix = ARGV[11] -- '' for any
local batch = ARGV[12] -- '' for any
local request_id = ARGV[13] -- '' for any
local oldest = tonumber(ARGV[14]) -- score: no earlier task is listed
local newest = ARGV[15] -- score: no later task is listed
local fields_from = 16

--- @include "task_filter.lua"

local start, rows = 0, {}
if id ~= '' then
  local rank = redis.call('ZREVRANK', state_key, id)
  if rank and tonumber(redis.call('ZSCORE', state_key, id)) == tonumber(score) then
    start = rank + 1
  else
    -- The task has another state or score now: continue at its former score.
    start = redis.call('ZCOUNT', state_key, '(' .. score, '+inf')
  end
elseif newest ~= '+inf' then
  start = redis.call('ZCOUNT', state_key, '(' .. newest, '+inf')
end
local ids = redis.call('ZREVRANGE', state_key, start, start + max_scanned - 1, 'WITHSCORES')
for i = 1, #ids, 2 do
  id, score = ids[i], ids[i + 1]
  if tonumber(score) < oldest then return {rows} end
  start = start + 1
  local row = row_of(id)
  if row then
    rows[#rows + 1] = row
    if #rows == limit then break end
  end
end
if start < redis.call('ZCARD', state_key) and #ids > 0 then return {rows, score, id} end
return {rows}
