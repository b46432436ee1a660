-- KEYS: who gets nothing. ARGV: (worker, milliseconds) of each. Replaces the previous content.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('DEL', KEYS[1])
local longest = 0
for i = 1, #ARGV, 2 do
  redis.call('ZADD', KEYS[1], now + ARGV[i + 1], ARGV[i])
  longest = math.max(longest, tonumber(ARGV[i + 1]))
end
if longest > 0 then redis.call('PEXPIRE', KEYS[1], longest) end
return #ARGV / 2
