-- KEYS: owner. Returns for how many seconds nobody has renewed the mark of the farm's coordinators, -1 where there is none. A
-- look renews nothing.
local idle = redis.pcall('OBJECT', 'IDLETIME', KEYS[1])
if type(idle) == 'number' then return idle end
-- A server that evicts by frequency does not tell.
return redis.call('EXISTS', KEYS[1]) - 1
