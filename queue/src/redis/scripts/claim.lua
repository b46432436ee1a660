-- KEYS: owner. ARGV: identity of the SQL database. Returns the identity that owns the farm's keys now.
redis.call('SET', KEYS[1], ARGV[1], 'NX')
return redis.call('GET', KEYS[1])
