-- Exempts a script from maxmemory. Redis refuses a script whose first write may need memory; after a first write that
-- cannot, it lets the script run to its end. No key has this name. (`#!lua flags=allow-oom` does the same, from Redis 7
-- on only.)
redis.call('DEL', 'match:nothing')
