-- KEYS: tasks, head. Returns 1 where a task waits.
for _, stream in ipairs(KEYS) do
  if redis.call('XLEN', stream) > 0 then
    local from = delivered(stream)
    if #redis.call('XRANGE', stream, '(' .. from, '+', 'COUNT', 1) > 0 then return 1 end
  end
end
return 0
