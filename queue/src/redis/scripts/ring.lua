-- KEYS: a bell. Gives a token back that nobody here wanted.
ring(KEYS[1], 1)
return 1
