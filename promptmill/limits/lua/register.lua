-- Note that a pool is in use.
--
-- KEYS  1 pools
-- ARGV  1 now ('' = Redis's clock)   2 pool
-- Reply 1
-- Touches only this key, which lies in a slot of its own.

local now = clock(ARGV[1])
redis.call('ZADD', KEYS[1], number(now), ARGV[2])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', number(now - LATELY))
redis.call('EXPIRE', KEYS[1], LATELY)
return 1
