-- Returns whether the collection was deleted by a request after the one with this sequence number.
local function is_deleted(collection, seq)
  return (tonumber(redis.call('ZSCORE', deleted_collections_key, collection)) or 0) > tonumber(seq)
end
