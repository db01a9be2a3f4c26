-- Note that a process lives; name those that have not been heard of for too long.
--
-- KEYS  1 processes
-- ARGV  1 now ('' = Redis's clock)   2 process
-- Reply the dead processes
-- Touches only this key.

local now = clock(ARGV[1])
redis.call('ZADD', KEYS[1], number(now), ARGV[2])
redis.call('EXPIRE', KEYS[1], IDLE)
return redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', number(now - pacing_heartbeat_timeout))
