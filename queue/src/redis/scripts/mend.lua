-- KEYS: keys of one slot. ARGV: the type that each must have. Deletes those of another type.
-- Returns how many.
local deleted = 0
for position, key in ipairs(KEYS) do
  local found = redis.call('TYPE', key)['ok']
  if found ~= 'none' and found ~= ARGV[position] then
    deleted = deleted + redis.call('DEL', key)
  end
end
return deleted
