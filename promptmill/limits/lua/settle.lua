-- Replace what a permit reserved by what was used, and compare the mirror with the headers of the reply.
--
-- KEYS  1 record   2 permits of the process   3 expired permits of the process
-- ARGV  1 now ('' = Redis's clock)   2-4 ceilings per second   5 permit   6 final ('1'; '0' = the answer began)
--       7 input tokens used, 8 output tokens used ('' both = unknown, the estimate stays charged)
--       9-11 limits per minute, 12-14 remaining, as the headers said ('' = not said)
-- Reply {generation, paused for}
-- Touches only these keys. A permit that is not found was settled before, or belongs to a record that was lost:
-- then only the limits are learned.

local now = clock(ARGV[1])
local record = load_record(KEYS[1], now, ceilings(2))
local permit, final = ARGV[5], ARGV[6] == '1'
local used = { 1, tonumber(ARGV[7]), tonumber(ARGV[8]) }

-- Credit what was reserved too much, or charge what was too little. The pacer gets exactly the time that this
-- surplus was charged, so that it never grants more than the ceiling's rate; a deficit is charged the same, but
-- at the limit and no more where the bucket holds plenty.
local function give_back(held, index, surplus)
  record.minute_used[index] = record.minute_used[index] - surplus
  if record.rate[index] <= 0 or held.rate[index] <= 0 then return end
  record.level[index] = min(record.capacity[index], record.level[index] + surplus)
  record.corrected[index] = record.corrected[index] + surplus
  local plenty = record.level[index] > pacing_set_point_max_share * record.capacity[index]
  local asked = held.amounts[index]
  local at_the_limit = 1 / record.rate[index]
  local per_unit = asked > 0 and pace_charged(record, held, index) / asked or at_the_limit
  if surplus < 0 and plenty then per_unit = min(per_unit, at_the_limit) end
  record.pacer[index] = record.pacer[index] - surplus * per_unit
end

local function settle_input(held)
  if held.input_settled ~= 0 then return end
  held.input_settled = 1
  local asked, count = held.amounts[INPUT], used[INPUT]
  if record.input_answers >= pacing_first_answers then
    local expected = max(1, asked * record.input_used / max(1, record.input_asked))
    local error = min((count / expected - 1) ^ 2, 4)
    local known = min(record.input_answers - pacing_first_answers + 1, pacing_memory)
    record.input_error = record.input_error + (error - record.input_error) / known
  end
  local fading = 1 - 1 / pacing_memory
  record.input_answers = record.input_answers + 1
  record.input_asked = record.input_asked * fading + asked
  record.input_used = record.input_used * fading + count
  record.input_variance = max(0, record.input_variance - held.input_variance)
  give_back(held, INPUT, asked - count)
end

local function settle_output(held)
  local asked, count = held.amounts[OUTPUT], used[OUTPUT]
  local fading = 1 - 1 / pacing_memory
  record.output_answers = record.output_answers + 1
  record.output_asked = record.output_asked * fading + asked
  record.output_used = record.output_used * fading + count
  local surprise = count - asked * record.output_used / max(1, record.output_asked)
  local weight = 1 / min(record.output_answers, pacing_memory)
  record.output_variance = record.output_variance + weight * (surprise ^ 2 - record.output_variance)
  weight = 1 / min(record.output_answers, pacing_latency_memory)
  record.output_mean = record.output_mean + weight * (count - record.output_mean)
  record.latency = record.latency + weight * (max(0, now - held.start) - record.latency)
  give_back(held, OUTPUT, asked - count)
end

-- Believe in a few seconds of capacity when answers come and never say anything.
local function count_answer_without_headers()
  if max(unpack(record.seen_at)) ~= NEVER then return end
  record.headerless = record.headerless + 1
  if record.headerless == pacing_headerless_answers then
    for index = 1, 3 do
      record.capacity[index] = max(record.capacity[index], pacing_headerless_capacity * record.rate[index])
    end
  end
end

local function rounding(index) return index == 1 and 0 or pacing_token_rounding end

-- Before the first header of a limit its bucket is not believed to hold what that of another limit held.
local function doubt(index)
  local least = max(index == 1 and 1 or 0, pacing_first_capacity * record.rate[index])
  if record.capacity[index] <= least then return end
  record.corrected[index] = record.corrected[index] + (least - record.level[index])
  record.capacity[index], record.level[index], record.full_seen[index] = least, least, 0
end

-- The capacity is what a header has shown at most: believing in less is always safe.
local function certify(held, index, remaining, own)
  local shown = remaining - rounding(index) + own
  if record.learned[index] > 0 then shown = min(shown, MINUTE * record.learned[index]) end
  if remaining > 0 and shown > record.capacity[index] then
    record.capacity[index] = shown
    record.full_seen[index] = 0
    return
  end
  local slack = 2 * rounding(index) + pacing_dead_band[1] * record.rate[index]
  if index ~= OUTPUT and held.level_before[index] > shown + slack and not is_shared(record, index) then
    record.full_seen[index] = record.full_seen[index] + 1
  end
end

-- The levels that a header may show without telling anything new: lowest, likely, highest.
local function expected(held, index, first)
  local level = held.level_after[index] + record.corrected[index] - held.corrected[index]
  level = min(level, record.capacity[index]) -- a limit lowered since the grant has cut the server's bucket too
  local width = pacing_dead_band[index] * record.rate[index]
  if is_shared(record, index) then width = width * pacing_dead_band_foreign end
  width = width + rounding(index)
  if index ~= OUTPUT then
    if first then return level, level, level end
    return level - width, level, level + width
  end
  -- The server has not yet counted the output that is still being produced.
  local likely, most = level + unproduced_share(record) * held.output_in_flight, level + held.output_in_flight
  if first then return most, likely, most end
  local spread = pacing_unsettled_sigmas * sqrt(held.in_flight * output_variance(record))
  return likely - spread - width, likely, most + spread + width
end

local function correct(held, index, remaining)
  local first = record.seen_at[index] == NEVER
  local lowest, middle, highest = expected(held, index, first)
  local error = min(0, remaining - lowest)
  if remaining > max(0, highest) then error = remaining - highest end
  local passed = first and 0 or max(0, now - record.seen_at[index])
  record.seen_at[index] = now
  local gain = first and 1 or passed / (passed + (error < 0 and pacing_observer_down or pacing_observer_up))
  local correction = min(gain * error, max(0, record.capacity[index] - record.level[index]))
  record.level[index] = record.level[index] + correction
  record.corrected[index] = record.corrected[index] + correction
  if passed > 0 then
    local leak = remaining < middle and pacing_foreign_leak or pacing_foreign_leak_up
    local drain = (record.foreign[index] - correction / pacing_foreign_time) * exp(-passed / leak)
    record.foreign[index] = min(pacing_foreign_most * server_rate(record, index), max(0, drain))
  end
end

local function observe(held)
  local own = { 1, used[INPUT] or held.amounts[INPUT], 0 }
  for index = 1, 3 do
    local remaining = tonumber(ARGV[11 + index])
    if remaining and record.rate[index] > 0 then
      if record.seen_at[index] == NEVER then doubt(index) end
      certify(held, index, remaining, own[index])
      correct(held, index, remaining)
    end
  end
end

-- A call that began after the overloads did is answered: not everything is refused. What was, begins gently.
local function hear_answer(held)
  if record.refused_since == NEVER or held.start < record.refused_since then return end
  if in_outage(record, now) then
    record.easing, record.eased_at = 1, now
    begin_gently(record, now)
  end
  record.refused_since = NEVER
end

local held, key = find_permit(KEYS[2], KEYS[3], permit)
learn_limits(record, 9, held and held.epoch == record.epoch and held.start or nil, now)
if held then
  if held.epoch == record.epoch and final and used[INPUT] == 0 and used[OUTPUT] == 0 then
    take_back_tokens(record, held) -- the call failed, which tells nothing about answers
    observe(held)
  elseif held.epoch == record.epoch then
    if used[INPUT] then settle_input(held) end
    observe(held)
    if final then
      count_answer_without_headers()
      if used[OUTPUT] then settle_output(held) end
    end
    if used[INPUT] or not final then hear_answer(held) end
  end
  if final then
    close_permit(record, held, key, KEYS[2], permit)
  else
    redis.call('HSET', key, permit, pack_reservation(held))
  end
end
save_record(KEYS[1], record)
return { pulse(record, now) }
