-- Give back a permit with which nothing was sent.
--
-- KEYS  1 record   2 permits of the process   3 expired permits of the process
-- ARGV  1 now ('' = Redis's clock)   2-4 ceilings per second   5 permit
-- Reply {generation, paused for}
-- Touches only these keys. A permit that is not found changes nothing.

local now = clock(ARGV[1])
local record = load_record(KEYS[1], now, ceilings(2))
local held, key = find_permit(KEYS[2], KEYS[3], ARGV[5])
if held then
  close_permit(record, held, key, KEYS[2], ARGV[5])
  if held.epoch == record.epoch then take_back(record, held) end
  save_record(KEYS[1], record)
end
return { pulse(record, now) }
