-- What the scripts of a pool share. Every script works on the keys of one pool, which are all
-- passed as KEYS and share one hash tag. A missing key or group is never an error: Redis may just
-- have been flushed.

local GROUP = 'farm'

-- Tokens in a bell's list: enough to wake a few workers, who wake more.
local TOKENS = 8

-- The last id that a stream delivered; nil if there is no stream. A missing group is created at 0,
-- because a group at $ would skip the entries that are already there.
local function delivered(stream)
  local groups = redis.pcall('XINFO', 'GROUPS', stream)
  if groups.err then
    if string.find(groups.err, 'no such key', 1, true) then return nil end
    error(groups.err)
  end
  for _, group in ipairs(groups) do
    local facts = {}
    for i = 1, #group, 2 do facts[group[i]] = group[i + 1] end
    if facts['name'] == GROUP then return facts['last-delivered-id'] end
  end
  redis.call('XGROUP', 'CREATE', stream, GROUP, '0')
  return '0-0'
end

-- Whether one entry's id is higher than another's.
local function is_after(one, other)
  local one_ms, one_number = string.match(one, '(%d+)-(%d+)')
  local other_ms, other_number = string.match(other, '(%d+)-(%d+)')
  if one_ms ~= other_ms then return tonumber(one_ms) > tonumber(other_ms) end
  return tonumber(one_number) > tonumber(other_number)
end

-- Whether a task waits.
local function any_waiting(head, tasks)
  for _, stream in ipairs({ head, tasks }) do
    if redis.call('XLEN', stream) > 0 then
      local from = delivered(stream)
      if #redis.call('XRANGE', stream, '(' .. from, '+', 'COUNT', 1) > 0 then return true end
    end
  end
  return false
end

-- The ids of a stream's entries that are pending with a consumer, as a set.
local function held_by(consumer, stream)
  local mine = {}
  if redis.call('XLEN', stream) == 0 then return mine end
  local pending = redis.pcall('XPENDING', stream, GROUP, '-', '+', 100000, consumer)
  if pending.err then return mine end
  for _, entry in ipairs(pending) do mine[entry[1]] = true end
  return mine
end

-- The stream and the entry's id of a lease: leases from the head carry a mark.
local function place(id, tasks, head)
  if string.sub(id, 1, 1) == 'h' then return head, string.sub(id, 2) end
  return tasks, id
end

local function forget(stream, ids)
  if #ids > 0 then
    redis.call('XACK', stream, GROUP, unpack(ids))
    redis.call('XDEL', stream, unpack(ids))
  end
end

-- Whether a worker gets nothing now, according to a set of such workers.
local function is_aside(key, worker)
  local ends = redis.call('ZSCORE', key, worker)
  if not ends then return false end
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000) < tonumber(ends)
end

-- Wakes up to `count` waiters at a bell. The list is bounded, so that tokens do not pile up if
-- nobody waits.
local function ring(bell, count)
  local room = TOKENS - redis.call('LLEN', bell)
  for _ = 1, math.min(count, room) do redis.call('RPUSH', bell, '') end
end

-- Puts leases of a worker back at the head of the line, in the given order and before all other
-- waiting tasks.
local function return_to_head(worker, ids, tasks, head)
  local mine = { [tasks] = held_by(worker, tasks), [head] = held_by(worker, head) }
  local gone = { [tasks] = {}, [head] = {} }
  local line = {}
  for _, lease in ipairs(ids) do
    local stream, id = place(lease, tasks, head)
    if mine[stream][id] then
      mine[stream][id] = nil
      local entry = redis.call('XRANGE', stream, id, id)[1]
      if entry then table.insert(line, entry[2]) end
      table.insert(gone[stream], id)
    end
  end
  if #gone[tasks] + #gone[head] == 0 then return 0 end
  local from = delivered(head)
  local behind = from and redis.call('XRANGE', head, '(' .. from, '+') or {}
  for _, entry in ipairs(behind) do
    table.insert(line, entry[2])
    redis.call('XDEL', head, entry[1])
  end
  for _, fields in ipairs(line) do redis.call('XADD', head, '*', unpack(fields)) end
  forget(tasks, gone[tasks])
  forget(head, gone[head])
  return #line
end
