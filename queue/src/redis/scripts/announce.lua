-- KEYS: cards, sightings. ARGV: worker, card, lifetime in milliseconds. Cards of workers that died long ago go.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
redis.call('ZADD', KEYS[2], now, ARGV[1])
for _, ghost in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now - ARGV[3], 'LIMIT', 0, 100)) do
  redis.call('HDEL', KEYS[1], ghost)
  redis.call('ZREM', KEYS[2], ghost)
end
redis.call('PEXPIRE', KEYS[1], ARGV[3])
redis.call('PEXPIRE', KEYS[2], ARGV[3])
return 1
