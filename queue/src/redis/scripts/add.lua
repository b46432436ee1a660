-- KEYS: tasks, head, results, bell, newest suspect. ARGV: limit, tasks still to come with these, then (field, key, body)
-- of each. Returns 1, or 0 when they do not fit.
local count = redis.call('XLEN', KEYS[1]) + redis.call('XLEN', KEYS[2]) + redis.call('XLEN', KEYS[3])
if count + tonumber(ARGV[2]) > tonumber(ARGV[1]) then return 0 end
for i = 3, #ARGV, 3 do
  local id = redis.call('XADD', KEYS[1], '*', 'k', ARGV[i + 1], ARGV[i], ARGV[i + 2])
  -- For the one who leases to know whether to look before it takes.
  if ARGV[i] == 's' then redis.call('SET', KEYS[5], id) end
end
ring(KEYS[4], (#ARGV - 2) / 3)
return 1
