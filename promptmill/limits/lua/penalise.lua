-- The server refused a call: a 429 pauses the pool for everybody, once; a 529 eases its pace,
-- and where nothing but 529s comes, pauses it as well.
--
-- KEYS  1 record   2 permits of the process   3 expired permits of the process
-- ARGV  1 now ('' = Redis's clock)   2-4 ceilings per second   5 permit   6 generation the permit was granted in
--       7 refused ('1' = 429, '0' = 529)   8 seconds to wait   9 dimension 1-3 (0 = not named, or a ramp limit)
--       10-12 limits per minute as the headers said ('' = not said)
-- Reply {generation, paused for}
-- Touches only these keys. A permit that is not found is not given back; the refusal counts all the same.

local now = clock(ARGV[1])
local record = load_record(KEYS[1], now, ceilings(2))
local permit, generation, refused = ARGV[5], tonumber(ARGV[6]), ARGV[7] == '1'
local retry_after, dimension = tonumber(ARGV[8]), tonumber(ARGV[9])

-- The bucket the server named is empty, whatever the mirror says; what is in flight will still draw on it.
local function empty(index)
  local owed = index == OUTPUT and unproduced_share(record) * record.output_in_flight or 0
  local emptied = min(record.level[index], -owed)
  record.corrected[index] = record.corrected[index] + (emptied - record.level[index])
  record.level[index] = emptied
  if index == 1 then
    local grown = record.request_jitter * pacing_request_jitter_growth
    record.request_jitter = min(pacing_request_jitter_most, grown)
    return
  end
  local rate = server_rate(record, index)
  record.foreign[index] = min(pacing_foreign_most * rate, record.foreign[index] + pacing_foreign_bump * rate)
end

local function refuse()
  record.paused_until = max(record.paused_until, now + retry_after)
  if generation ~= record.generation then return end
  record.generation = record.generation + 1
  if dimension > 0 then empty(dimension) end
  record.overdrive = { 0, 0, 0 }
  record.ramp_from = max(pacing_ramp_floor, pacing_ramp_after_refusal * ramp(record, now))
  record.ramp_at = record.paused_until
  hold_pace_until(record, record.paused_until)
end

local function ease()
  recover(record, now)
  if record.refused_since == NEVER or now - record.cut_at > pacing_idle_restart then
    record.refused_since = now
    record.outage_from = now + pacing_outage_patience + record.latency
  end
  if now - record.cut_at > pacing_easing_interval then
    record.easing = max(pacing_easing_floor, record.easing * pacing_easing)
    record.cut_at = now
  end
  if in_outage(record, now) then
    record.paused_until = max(record.paused_until, now + min(retry_after, pacing_outage_pause_most))
  end
end

learn_limits(record, 10, now, now) -- a refusal comes at once
local held, key = find_permit(KEYS[2], KEYS[3], permit)
if held then
  close_permit(record, held, key, KEYS[2], permit)
  if held.epoch == record.epoch then take_back(record, held) end
end
if refused then refuse() else ease() end
save_record(KEYS[1], record)
return { pulse(record, now) }
