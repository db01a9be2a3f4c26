-- Give up the permits of one dead process. What they were charged stays charged: the calls may have been made,
-- and if the process was only frozen, its settlements still find their permits among the expired.
--
-- KEYS  1 record   2 processes   3 permits of the dead process   4 its expired permits
-- ARGV  1 now ('' = Redis's clock)   2 dead process
-- Reply the number of permits given up; 0 when the process has come back
-- Touches only these keys.

local KEPT = 3600 -- s for which an expired permit may still be settled

local now, dead = clock(ARGV[1]), ARGV[2]
local beat = tonumber(redis.call('ZSCORE', KEYS[2], dead) or '') or now
if beat > now - pacing_heartbeat_timeout then return 0 end
local known = read_record(KEYS[1])
redis.call('ZREM', KEYS[2], dead)
local found = redis.call('HGETALL', KEYS[3])
redis.call('DEL', KEYS[3])
if not known then return 0 end
local record = load_record(KEYS[1], now, { LEARN, LEARN, LEARN })
for place = 1, #found, 2 do
  if is_reservation(found[place + 1]) then
    local held = unpack_reservation(found[place + 1])
    if held.epoch == record.epoch then leave(record, held) end
    held.input_variance = 0 -- taken out; a late settlement finds nothing left of it
    redis.call('HSET', KEYS[4], found[place], pack_reservation(held))
  end
end
if #found > 0 then redis.call('EXPIRE', KEYS[4], KEPT) end
local line = {}
for _, turn in ipairs(record.line) do
  if turn[1] ~= dead then line[#line + 1] = turn end
end
record.line = line
save_record(KEYS[1], record)
return #found / 2
