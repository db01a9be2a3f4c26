-- The record as it is, as text.
--
-- KEYS  1 record
-- ARGV  1 now ('' = Redis's clock)
-- Reply {now, line, the doubles of the record in order}, or {now} when there is no record
-- Changes nothing.

local now = clock(ARGV[1])
local packed = read_record(KEYS[1])
if not packed then return { string.format('%.17g', now) } end
local reply = { string.format('%.17g', now), string.sub(packed, RECORD_BYTES + 1) }
for place = 1, RECORD_BYTES, 8 do
  reply[#reply + 1] = string.format('%.17g', (struct.unpack('<d', packed, place)))
end
return reply
