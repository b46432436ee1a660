-- KEYS: tasks, head, bell, newest suspect, who gets nothing. ARGV: worker, most tasks, and, if an
-- answer to this worker may have been lost, 1 and the leases that it knows: all other leases in its
-- name first go back to the head. Returns the entries from the head and those from the line.
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

if is_aside(KEYS[5], worker) then
  -- The token that woke this worker was for another task.
  if any_waiting(head, tasks) then ring(bell, 1) end
  return { {}, {} }
end

-- How many of the next entries may be taken together, and whether the lease ends with them: a
-- suspect comes alone. The name of the second field tells which task is a suspect.
local function takeable(stream, most, first)
  local ahead = redis.call('XRANGE', stream, '(' .. delivered(stream), '+', 'COUNT', most)
  for position, entry in ipairs(ahead) do
    if entry[2][3] == 's' then
      if first and position == 1 then return 1, true end
      return position - 1, true
    end
  end
  return #ahead, false
end

-- Most leases need no such look: suspects are few, and the id of the newest one is known.
local function may_hold_suspects(stream)
  if stream == head then return true end
  local newest = redis.call('GET', KEYS[4])
  if not newest or not string.match(newest, '^%d+%-%d+$') then
    redis.call('DEL', KEYS[4])
    return false
  end
  local from = delivered(stream)
  if from and is_after(newest, from) then return true end
  redis.call('DEL', KEYS[4])
  return false
end

local function read(stream, most)
  local answer = redis.pcall('XREADGROUP', 'GROUP', GROUP, worker, 'COUNT', most, 'STREAMS', stream, '>')
  if answer and answer.err then
    delivered(stream)
    answer = redis.call('XREADGROUP', 'GROUP', GROUP, worker, 'COUNT', most, 'STREAMS', stream, '>')
  end
  return answer and answer[1][2] or {}
end

local taken = { {}, {} }
local count, closed = 0, false
for position, stream in ipairs({ head, tasks }) do
  if not closed and count < room and redis.call('XLEN', stream) > 0 then
    local most = room - count
    if may_hold_suspects(stream) then most, closed = takeable(stream, most, count == 0) end
    if most > 0 then
      taken[position] = read(stream, most)
      count = count + #taken[position]
    end
  end
end

if count == 0 then
  redis.call('DEL', bell)
elseif (closed or count == room) and redis.call('LLEN', bell) == 0 and any_waiting(head, tasks) then
  ring(bell, 2)
end
return taken
