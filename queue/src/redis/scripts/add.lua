-- KEYS: tasks, head, results, bell. ARGV: limit, tasks still to come with these, then (field, key, body) of each.
-- Returns 1, or 0 when they do not fit.
local count = redis.call('XLEN', KEYS[1]) + redis.call('XLEN', KEYS[2]) + redis.call('XLEN', KEYS[3])
if count + tonumber(ARGV[2]) > tonumber(ARGV[1]) then return 0 end
for i = 3, #ARGV, 3 do redis.call('XADD', KEYS[1], '*', 'k', ARGV[i + 1], ARGV[i], ARGV[i + 2]) end
ring(KEYS[4], (#ARGV - 2) / 3)
return 1
