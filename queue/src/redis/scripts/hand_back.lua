-- KEYS: tasks, head, bell. ARGV: worker, then leases in their old order.
local ids = {}
for i = 2, #ARGV do table.insert(ids, ARGV[i]) end
local count = return_to_head(ARGV[1], ids, KEYS[1], KEYS[2])
ring(KEYS[3], count)
return count
