-- Take over the limits that the Rate Limits API states for a pool.
--
-- KEYS  1 record
-- ARGV  1 now ('' = Redis's clock)   2-4 ceilings per second   5-7 limits per minute ('' = not said, 0 = none)
-- Reply {generation, paused for}
-- Touches only this key.

local now = clock(ARGV[1])
local record = load_record(KEYS[1], now, ceilings(2))
learn_probed(record, 5, now)
save_record(KEYS[1], record)
return { pulse(record, now) }
