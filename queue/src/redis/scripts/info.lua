-- KEYS: any key of the farm, which says which node of a cluster is asked. Returns what the server says of itself.
local answer = {}
for _, section in ipairs({ 'server', 'memory', 'replication', 'persistence' }) do
  table.insert(answer, redis.call('INFO', section))
end
return table.concat(answer, '\r\n')
