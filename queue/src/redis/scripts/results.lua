-- KEYS: results, their bell. ARGV: committer, most results, takeover time in milliseconds, whether
-- to look for silent committers. Returns the results that were taken over (also old ones of this
-- committer), and the new ones.
local taken, new = {}, {}
local most = tonumber(ARGV[2])
if redis.call('XLEN', KEYS[1]) > 0 and delivered(KEYS[1]) then
  if ARGV[4] == '1' then
    taken = redis.call('XAUTOCLAIM', KEYS[1], GROUP, ARGV[1], ARGV[3], '0', 'COUNT', most)[2]
  end
  if #taken < most then
    local count = most - #taken
    local read = redis.call('XREADGROUP', 'GROUP', GROUP, ARGV[1], 'COUNT', count, 'STREAMS', KEYS[1], '>')
    new = read and read[1][2] or {}
  end
end
if #new == 0 then redis.call('DEL', KEYS[2]) end
return { taken, new }
