-- KEYS: tasks, head, results, bell of the results. ARGV: worker, then (lease, key, result) of each.
-- Returns, for each, 1 if the lease was this worker's and the result is now queued, otherwise 0.
local worker = ARGV[1]
local mine = { [KEYS[1]] = held_by(worker, KEYS[1]), [KEYS[2]] = held_by(worker, KEYS[2]) }
local gone = { [KEYS[1]] = {}, [KEYS[2]] = {} }
local answers = {}
local recorded = false
for i = 2, #ARGV, 3 do
  local stream, id = place(ARGV[i], KEYS[1], KEYS[2])
  if mine[stream][id] then
    mine[stream][id] = nil
    redis.call('XADD', KEYS[3], '*', 'k', ARGV[i + 1], 'r', ARGV[i + 2])
    table.insert(gone[stream], id)
    table.insert(answers, 1)
    recorded = true
  else
    table.insert(answers, 0)
  end
end
forget(KEYS[1], gone[KEYS[1]])
forget(KEYS[2], gone[KEYS[2]])
if recorded and redis.call('LLEN', KEYS[4]) == 0 then redis.call('RPUSH', KEYS[4], '') end
return answers
