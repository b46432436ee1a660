-- KEYS: tasks, head, bell. ARGV: worker, most, and, when an answer to this worker may have been lost, 1 and the leases
-- it knows of: whatever else is in its name goes back to the head first.
-- Returns the entries from the head and those from the line.
local worker, room = ARGV[1], tonumber(ARGV[2])
local tasks, head, bell = KEYS[1], KEYS[2], KEYS[3]

if ARGV[3] == '1' then
  local known = {}
  for i = 4, #ARGV do known[ARGV[i]] = true end
  local strays = {}
  for _, stream in ipairs({ head, tasks }) do
    local mark = stream == head and 'h' or ''
    local pending = redis.pcall('XPENDING', stream, GROUP, '-', '+', 100000, worker)
    for _, entry in ipairs(pending.err and {} or pending) do
      local id = mark .. entry[1]
      if not known[id] then table.insert(strays, id) end
    end
  end
  return_to_head(worker, strays, tasks, head)
end

local taken = { {}, {} }
local count, closed, more = 0, false, false
for position, stream in ipairs({ head, tasks }) do
  if redis.call('XLEN', stream) > 0 then
    local from = delivered(stream)
    local ahead = redis.call('XRANGE', stream, '(' .. from, '+', 'COUNT', room - count + 1)
    local take = 0
    for _, entry in ipairs(ahead) do
      -- The second field's name says whether the task is a suspect: it is taken alone.
      local suspect = entry[2][3] == 's'
      if closed or count + take == room or (suspect and count + take > 0) then
        closed, more = true, true
        break
      end
      take = take + 1
      closed = suspect
    end
    if take > 0 then
      local read = redis.call('XREADGROUP', 'GROUP', GROUP, worker, 'COUNT', take, 'STREAMS', stream, '>')
      taken[position] = read[1][2]
      count = count + take
    end
  end
end

if more then
  ring(bell, 2)
elseif count == 0 then
  redis.call('DEL', bell)
end
return taken
