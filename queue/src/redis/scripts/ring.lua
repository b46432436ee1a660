-- KEYS: a bell. Puts back a token that nobody in this process needed.
ring(KEYS[1], 1)
return 1
