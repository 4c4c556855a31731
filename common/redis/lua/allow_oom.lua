-- Exempts a script from maxmemory. A full Redis rejects a script at its first write, unless that write cannot need
-- memory; then it runs the whole script. No key has this name. (`#!lua flags=allow-oom` has the same effect, but needs
-- Redis 7.)
redis.call('DEL', 'match:nothing')
