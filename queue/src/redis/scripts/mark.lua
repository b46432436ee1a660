-- KEYS: owner. Returns the seconds since a coordinator last renewed the mark, or -1 if there is no
-- mark. Looking does not renew it.
local idle = redis.pcall('OBJECT', 'IDLETIME', KEYS[1])
if type(idle) == 'number' then return idle end
-- A server that evicts by frequency does not report idle times.
return redis.call('EXISTS', KEYS[1]) - 1
