-- KEYS: a stream of tasks. ARGV: where to begin, most entries to look at, whether to remove leased
-- ones too, then keys. Returns where to continue ('' at the end), then the keys that were removed.
local entries = redis.call('XRANGE', KEYS[1], ARGV[1], '+', 'COUNT', ARGV[2])
if #entries == 0 then return { '' } end
local wanted = {}
for i = 4, #ARGV do wanted[ARGV[i]] = true end
local last = entries[#entries][1]
local leased = {}
if ARGV[3] == '0' then
  local pending = redis.pcall('XPENDING', KEYS[1], GROUP, entries[1][1], last, #entries)
  for _, entry in ipairs(pending.err and {} or pending) do leased[entry[1]] = true end
end
local answer, gone = { #entries < tonumber(ARGV[2]) and '' or '(' .. last }, {}
for _, entry in ipairs(entries) do
  local key = entry[2][2]
  if wanted[key] and not leased[entry[1]] then
    table.insert(answer, key)
    table.insert(gone, entry[1])
  end
end
forget(KEYS[1], gone)
return answer
