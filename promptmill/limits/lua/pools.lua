-- The pools that were used lately.
--
-- KEYS  1 pools
-- ARGV  1 now ('' = Redis's clock)
-- Reply their names
-- Changes nothing.

return redis.call('ZRANGEBYSCORE', KEYS[1], number(clock(ARGV[1]) - LATELY), '+inf')
