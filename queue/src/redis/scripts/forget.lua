-- KEYS: a stream. ARGV: ids of entries to delete.
forget(KEYS[1], ARGV)
return #ARGV
