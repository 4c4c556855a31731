-- Returns the id and the fields of a task that the list has; false for any other.
local function row_of(id)
  local key = task_prefix .. id
  local its_state, its_code, filepath, its_collection, its_batch, its_request = unpack(
    redis.call('HMGET', key, 'state', 'code', 'filepath', 'collection', 'batch', 'request'))
  local has_code = code == '' or its_code == code or (former_code ~= '' and its_code == former_code)
  local has_prefix = string.sub(filepath or '', 1, #filepath_prefix) == filepath_prefix
  local is_member = (its_collection or default_collection) == collection and (batch == '' or its_batch == batch)
  local is_requested = request_id == '' or its_request == request_id
  if its_state ~= state or not (has_code and has_prefix and is_member and is_requested) then return false end
  return {id, redis.call('HMGET', key, unpack(ARGV, fields_from))}
end
