-- KEYS: tasks, head, results, bell, newest suspect. ARGV: limit, tasks of the same call that are
-- still to come, then (field, key, body) of each. Returns 1, or 0 if they do not fit.
local count = redis.call('XLEN', KEYS[1]) + redis.call('XLEN', KEYS[2]) + redis.call('XLEN', KEYS[3])
if count + tonumber(ARGV[2]) > tonumber(ARGV[1]) then return 0 end
for i = 3, #ARGV, 3 do
  local id = redis.call('XADD', KEYS[1], '*', 'k', ARGV[i + 1], ARGV[i], ARGV[i + 2])
  -- So that a lease call knows whether it must look for suspects before it takes.
  if ARGV[i] == 's' then redis.call('SET', KEYS[5], id) end
end
ring(KEYS[4], (#ARGV - 2) / 3)
return 1
