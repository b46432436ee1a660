-- KEYS: cards, sightings, who must drain, who gets nothing. ARGV: oldest age in milliseconds.
-- Returns for each: age in milliseconds, worker, card, whether it must drain, whether it gets
-- nothing.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local seen = redis.call('ZRANGEBYSCORE', KEYS[2], now - ARGV[1], '+inf', 'WITHSCORES')
local draining = {}
for _, worker in ipairs(redis.call('ZRANGE', KEYS[3], 0, -1)) do draining[worker] = 1 end
local aside = {}
for _, worker in ipairs(redis.call('ZRANGEBYSCORE', KEYS[4], now + 1, '+inf')) do aside[worker] = 1 end
local answer = {}
for i = 1, #seen, 2 do
  local card = redis.call('HGET', KEYS[1], seen[i])
  if card then
    table.insert(answer, { now - seen[i + 1], seen[i], card, draining[seen[i]] or 0, aside[seen[i]] or 0 })
  end
end
return answer
