-- KEYS: tasks, head. Returns 1 if a task waits.
return any_waiting(KEYS[2], KEYS[1]) and 1 or 0
