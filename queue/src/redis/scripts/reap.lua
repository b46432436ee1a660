-- KEYS: tasks, head, results. ARGV: lease in milliseconds, run id of the server that the caller
-- knows ('' for none), most leases, whether to tidy, idle milliseconds after which a consumer with
-- nothing pending is removed, seconds after which keys that nobody reaps expire. Returns the
-- server's run id, then (lease, holder, fields) of each expired lease. Nothing is taken from a
-- server with another run id: live workers could not renew while it was away.
local run = string.match(redis.call('INFO', 'server'), 'run_id:(%x+)')
if ARGV[2] ~= '' and ARGV[2] ~= run then return { run } end
local answer = { run }
for _, stream in ipairs({ KEYS[2], KEYS[1] }) do
  local mark = stream == KEYS[2] and 'h' or ''
  local expired = redis.pcall('XPENDING', stream, GROUP, 'IDLE', ARGV[1], '-', '+', ARGV[3])
  local gone = {}
  for _, pending in ipairs(expired.err and {} or expired) do
    local entry = redis.call('XRANGE', stream, pending[1], pending[1])[1]
    if entry then table.insert(answer, { mark .. pending[1], pending[2], entry[2] }) end
    table.insert(gone, pending[1])
  end
  forget(stream, gone)
end
if ARGV[4] == '1' then
  for _, stream in ipairs(KEYS) do
    local consumers = redis.pcall('XINFO', 'CONSUMERS', stream, GROUP)
    for _, consumer in ipairs(consumers.err and {} or consumers) do
      local facts = {}
      for i = 1, #consumer, 2 do facts[consumer[i]] = consumer[i + 1] end
      -- DELCONSUMER drops pending entries, so it is used only when there are none.
      if facts['pending'] == 0 and facts['idle'] > tonumber(ARGV[5]) then
        redis.call('XGROUP', 'DELCONSUMER', stream, GROUP, facts['name'])
      end
    end
    redis.call('EXPIRE', stream, ARGV[6])
  end
end
return answer
