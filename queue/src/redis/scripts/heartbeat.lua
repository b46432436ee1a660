-- KEYS: tasks, head. ARGV: worker, then leases. Returns those that are lost. A plain XCLAIM would
-- steal a lease back, so only entries that are still pending with this worker are claimed.
local worker = ARGV[1]
local mine = { [KEYS[1]] = held_by(worker, KEYS[1]), [KEYS[2]] = held_by(worker, KEYS[2]) }
local renew = { [KEYS[1]] = {}, [KEYS[2]] = {} }
for i = 2, #ARGV do
  local stream, id = place(ARGV[i], KEYS[1], KEYS[2])
  if mine[stream][id] then table.insert(renew[stream], id) end
end
local kept = {}
for stream, ids in pairs(renew) do
  if #ids > 0 then
    local arguments = { 'XCLAIM', stream, GROUP, worker, 0, unpack(ids) }
    table.insert(arguments, 'JUSTID')
    local mark = stream == KEYS[2] and 'h' or ''
    for _, id in ipairs(redis.call(unpack(arguments))) do kept[mark .. id] = true end
  end
end
local lost = {}
for i = 2, #ARGV do
  if not kept[ARGV[i]] then table.insert(lost, ARGV[i]) end
end
return lost
