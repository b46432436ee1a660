-- KEYS: who must drain. ARGV: worker, lifetime in milliseconds.
local time = redis.call('TIME')
redis.call('ZADD', KEYS[1], time[1] * 1000 + math.floor(time[2] / 1000), ARGV[1])
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
