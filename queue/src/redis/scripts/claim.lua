-- KEYS: owner. ARGV: identity of the SQL database. Returns the identity that now owns the farm's
-- keys.
redis.call('SET', KEYS[1], ARGV[1], 'NX')
return redis.call('GET', KEYS[1])
