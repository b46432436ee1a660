-- KEYS: any key of the farm; it decides which node of a cluster is asked. Returns the server's
-- INFO.
local answer = {}
for _, section in ipairs({ 'server', 'memory', 'replication', 'persistence' }) do
  table.insert(answer, redis.call('INFO', section))
end
return table.concat(answer, '\r\n')
