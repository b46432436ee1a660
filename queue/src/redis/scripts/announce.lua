-- KEYS: cards, sightings, who must drain, who gets nothing. ARGV: worker, card, lifetime in
-- milliseconds. Removes cards of workers that died long ago. Returns whether the worker must drain,
-- and whether it gets nothing.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
redis.call('ZADD', KEYS[2], now, ARGV[1])
for _, ghost in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now - ARGV[3], 'LIMIT', 0, 100)) do
  redis.call('HDEL', KEYS[1], ghost)
  redis.call('ZREM', KEYS[2], ghost)
end
redis.call('ZREMRANGEBYSCORE', KEYS[3], '-inf', now - ARGV[3])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
redis.call('PEXPIRE', KEYS[2], ARGV[3])
local drain = redis.call('ZSCORE', KEYS[3], ARGV[1]) and 1 or 0
return { drain, is_aside(KEYS[4], ARGV[1]) and 1 or 0 }
