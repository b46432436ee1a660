-- KEYS: a stream. ARGV: ids of entries that are done with.
forget(KEYS[1], ARGV)
return #ARGV
