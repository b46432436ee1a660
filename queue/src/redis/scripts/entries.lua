-- KEYS: a stream. ARGV: where to begin, most entries. Returns where to continue ('' at the end),
-- then (id, key, holder) of each entry; the holder of a waiting task is ''.
local entries = redis.call('XRANGE', KEYS[1], ARGV[1], '+', 'COUNT', ARGV[2])
if #entries == 0 then return { '' } end
local last = entries[#entries][1]
local holders = {}
local pending = redis.pcall('XPENDING', KEYS[1], GROUP, entries[1][1], last, #entries)
for _, entry in ipairs(pending.err and {} or pending) do holders[entry[1]] = entry[2] end
local answer = { #entries < tonumber(ARGV[2]) and '' or '(' .. last }
for _, entry in ipairs(entries) do
  table.insert(answer, entry[1])
  table.insert(answer, entry[2][1] == 'k' and entry[2][2] or '')
  table.insert(answer, holders[entry[1]] or '')
end
return answer
