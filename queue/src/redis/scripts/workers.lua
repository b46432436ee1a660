-- KEYS: cards, sightings. ARGV: oldest age in milliseconds. Returns (age in milliseconds, card) of each.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local seen = redis.call('ZRANGEBYSCORE', KEYS[2], now - ARGV[1], '+inf', 'WITHSCORES')
local answer = {}
for i = 1, #seen, 2 do
  local card = redis.call('HGET', KEYS[1], seen[i])
  if card then
    table.insert(answer, now - seen[i + 1])
    table.insert(answer, card)
  end
end
return answer
