"""What our scripts in Lua share."""

# By Redis's clock, and so by one for all processes: milliseconds since 1970.
NOW_MS = """
local function now_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end
"""

# A Redis whose memory is used up refuses every command that could need more. A script whose first write needs none is
# let through to its end: one that begins with this is never refused. Nothing has this name.
EVEN_WHEN_FULL = "redis.call('DEL', 'match:nothing')\n"
