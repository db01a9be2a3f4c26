-- Whether permits that were granted a moment ago still hold.
--
-- KEYS  1 record
-- ARGV  1 now ('' = Redis's clock)
-- Reply {generation, paused for}; generation 0 when there is no record, so that no permit holds
-- Changes nothing.

local now = clock(ARGV[1])
local packed = read_record(KEYS[1])
if not packed then return { '0', '0' } end
local _, _, _, generation, paused_until = struct.unpack('<ddddd', packed)
return { string.format('%d', generation), number(max(0, paused_until - now)) }
