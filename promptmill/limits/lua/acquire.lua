-- Grant a prefix of what a process asks for, in order, in all dimensions or none; what is left waits in line.
--
-- KEYS  1 record   2 processes   3 permits of the process
-- ARGV  1 now ('' = Redis's clock)   2 process   3-5 ceilings per second   then for each ask five:
--       permit id, requests, input tokens, output tokens, seconds it will wait
--       No ask at all gives up the turn of the process.
-- Reply {waits, denial, generation, paused for}: waits are the seconds until the start of each call granted;
--       denial is {} or {ticket, starts in, dimension (0 = none), limit it can never fit into (0), interval}
-- Touches only these keys. A repeated question (its first permit exists) is answered again, not charged again.

local now, process = clock(ARGV[1]), ARGV[2]
local record = load_record(KEYS[1], now, ceilings(3))
local FIRST, WIDTH = 6, 5

-- Processes may disagree: each grant is charged at the ceiling of who asked, and what is used of the pacer stays used.
local function adopt_ceilings(wanted)
  local changed, guessed = false, guesses(record)
  for index = 1, 3 do
    if wanted[index] ~= record.ceiling[index] then
      changed = true
      record.overdrive[index] = wanted[index] == LEARN and pacing_overdrive[index] or 0
    end
  end
  if changed then
    record.ceiling = wanted
    update_rates(record, guessed, now, true)
  end
end

local function restart_when_cold()
  if min(now - record.moment, now - record.ramp_at) > pacing_idle_restart then
    begin_gently(record, now)
  end
end

-- Begin a new minute of counting what is used, when the last one is over.
local function roll_minute()
  local passed = math.floor((now - record.minute_began) / MINUTE)
  if passed >= 1 then
    record.minute_before = passed == 1 and record.minute_used or { 0, 0, 0 }
    record.minute_used = { 0, 0, 0 }
    record.minute_began = record.minute_began + MINUTE * passed
  end
end

------------------------------------------------------------------------------------------------ planning

local function bankable(index)
  local capacity = record.capacity[index]
  if index ~= OUTPUT then return capacity end
  return capacity - min(pacing_lag_share * capacity, unproduced_share(record) * record.output_in_flight)
end

local function input_error()
  local answers = min(max(0, record.input_answers - pacing_first_answers), pacing_memory)
  local prior = pacing_prior_weight * pacing_prior_error ^ 2
  return sqrt((prior + answers * record.input_error) / (pacing_prior_weight + answers))
end

local function in_flight_cap()
  local rate = record.rate[OUTPUT]
  local speed = record.latency > 0 and record.output_mean / record.latency or 0
  if rate <= 0 or speed <= 0 or record.output_answers < pacing_little_after then return math.huge end
  local slack = pacing_little_slack + record.capacity[OUTPUT] / (4 * rate * record.latency)
  return max(2, min(rate, refill(record, OUTPUT)) / speed * slack)
end

-- What the mirror must hold before the call: its amount and reserves that are not charged.
local function needed(index, amount, bank, error)
  local rate, reserve, unsettled = record.rate[index], record.rate[index] * pacing_guard[index], 0
  if index == INPUT then
    unsettled = min(pacing_input_reserve_share * bank, pacing_unsettled_sigmas * sqrt(record.input_variance))
    reserve = reserve + pacing_input_sigmas * error * amount + unsettled
  elseif index == OUTPUT then
    local spread = sqrt(max(0, record.in_flight) * output_variance(record))
    reserve = reserve + pacing_unsettled_sigmas * spread
    reserve = min(pacing_output_reserve_share * record.capacity[OUTPUT], reserve)
  end
  local need = amount + reserve
  if index == OUTPUT then need = min(need, bank) end -- the server asks only that the level is above zero
  if record.full_seen[index] >= pacing_full_after then
    need = min(need, bank + rate * record.request_jitter + unsettled)
  end
  return need
end

local function set_point(index, bank, moment)
  local seconds = pacing_set_point_seconds * record.rate[index]
  local most = pacing_set_point_max_share * bank
  if is_shared(record, 1) or is_shared(record, 2) or is_shared(record, 3) then
    seconds, most = pacing_set_point_shared * seconds, pacing_set_point_shared_max_share * bank
  end
  local usual = max(pacing_set_point_share * bank, min(seconds, most))
  if index == INPUT and moment < record.saving_until then return max(usual, record.saving_for) end
  return usual
end

-- The earliest start of a call: the end of a pause, some seconds after the last call where nothing succeeds, the moment the mirror holds it, the moment the pacer lets it.
local function plan(amounts)
  local base = max(now, record.moment)
  local outcome = {
    base = base, start = max(base, record.paused_until), binding = 0, error = input_error(),
    need = { 0, 0, 0 }, level = { 0, 0, 0 }, bank = { 0, 0, 0 }, pace = { 0, 0, 0 }, refill = { 0, 0, 0 },
  }
  local reached, starting = ramp(record, outcome.start), record.paused_until < record.ramp_at
  if in_outage(record, now) then outcome.start = max(outcome.start, record.moment + pacing_probe_interval) end
  for index = 1, 3 do
    local rate = record.rate[index]
    if rate > 0 then
      local amount, refilled, bank = amounts[index], refill(record, index), bankable(index)
      local need = needed(index, amount, bank, outcome.error)
      -- The level may grow past the bank up to what this call needs: it pays before it starts.
      local level = min(record.level[index] + refilled * (base - record.moment), max(bank, need))
      local earliest = record.pacer[index] - pacing_tolerance[index]
      if level < need then earliest = max(earliest, base + (need - level) / refilled) end
      if earliest > outcome.start then outcome.start, outcome.binding = earliest, index end
      local surplus = level - amount - set_point(index, bank, base)
      local steering = surplus / (rate * (surplus > 0 and pacing_surplus_time or pacing_deficit_time))
      steering = max(-pacing_slowest, min(record.overdrive[index], steering))
      outcome.need[index], outcome.level[index], outcome.bank[index] = need, level, bank
      outcome.refill[index] = refilled
      -- No start needs to be slower than the default limits; the return from a 429 may be.
      local share = reached
      if starting then share = max(share, min(1, default_limits[index] / MINUTE / rate)) end
      outcome.pace[index] = min(rate, refilled) * (share * record.easing) * (1 + steering)
    end
  end
  if record.in_flight >= in_flight_cap() then
    local later = now + pacing_horizon + 0.5 * record.interval
    if later > outcome.start then outcome.start, outcome.binding = later, OUTPUT end
  end
  return outcome
end

-- Debit mirror and pacer in one dimension; return the seconds of pace that it took.
local function charge(outcome, index, amount)
  local start = outcome.start
  outcome.level[index] = outcome.level[index] + outcome.refill[index] * (start - outcome.base)
  record.level[index] = min(outcome.bank[index], outcome.level[index]) - amount
  local charged = amount / outcome.pace[index]
  record.pacer[index] = max(record.pacer[index], start) + charged
  if index == 1 then
    -- A bucket of hardly more than one request has no room for arrivals that come early.
    local slack = (max(1, record.rate[1]) - 1) / record.rate[1]
    record.pacer[1] = record.pacer[1] + max(0, record.request_jitter - slack)
  end
  return charged
end

local function commit(permit, outcome, amounts)
  local charged, weight = { 0, 0, 0 }, record.mean_cost[1] > 0 and 0.05 or 1
  for index = 1, 3 do
    if record.rate[index] > 0 then charged[index] = charge(outcome, index, amounts[index]) end
    record.minute_used[index] = record.minute_used[index] + amounts[index]
    record.mean_cost[index] = record.mean_cost[index] + (amounts[index] - record.mean_cost[index]) * weight
  end
  if outcome.need[INPUT] >= record.saving_for then record.saving_until = 0 end
  record.interval = record.interval + 0.05 * (min(10, outcome.start - record.moment) - record.interval)
  record.moment = outcome.start
  record.in_flight = record.in_flight + 1
  record.output_in_flight = record.output_in_flight + amounts[OUTPUT]
  local variance = (outcome.error * amounts[INPUT]) ^ 2
  record.input_variance = record.input_variance + variance
  return pack_reservation({
    epoch = record.epoch, generation = record.generation, start = outcome.start, amounts = amounts, pace = charged,
    rate = record.rate, level_before = outcome.level, level_after = record.level, corrected = record.corrected,
    in_flight = record.in_flight, output_in_flight = record.output_in_flight, input_variance = variance,
    input_settled = 0,
  })
end

-- The dimension whose known bucket can never hold the call, or 0. Output is debited as it is produced.
local function too_large(amounts)
  for index = 1, INPUT do
    local rate = record.rate[index]
    local known = record.ceiling[index] > 0 or record.learned[index] > 0
    if known and rate > 0 and amounts[index] > MINUTE * rate * (1 + 1e-9) then return index end
  end
  return 0
end

---------------------------------------------------------------------------------------------- the line

local ahead, behind = {}, {}

-- Those before this process and those behind it; who did not come when due has lost the turn.
local function part_line()
  local passed = false
  for _, turn in ipairs(record.line) do
    if turn[2] + pacing_line_grace >= now then
      if turn[1] == process then
        passed = true
      else
        local side = passed and behind or ahead
        side[#side + 1] = turn
      end
    end
  end
end

local function joined(before, turn, after)
  local line = {}
  for _, entry in ipairs(before) do line[#line + 1] = entry end
  if turn then line[#line + 1] = turn end
  for _, entry in ipairs(after) do line[#line + 1] = entry end
  return line
end

-- Seconds that a process leaves to the others at least, so that all have a turn before their work runs out.
local function gap() return min(pacing_gap, pacing_round / max(1, #record.line)) end

-- Turns follow each other as fast as the limits allow calls; what is measured may be slow because the turns were.
local function due_after(others, earliest)
  local possible = 0
  for index = 1, 3 do
    local rate = record.rate[index]
    if rate > 0 then possible = max(possible, record.mean_cost[index] / rate) end
  end
  local turn = max(gap(), pacing_turn_share * min(record.interval, possible))
  return max(earliest, others[1][2]) + #others * turn
end

local function longest_ticket() return max(pacing_ticket_longest, record.paused_until - now) end

local function denial(due, starts_in, dimension, limit)
  return { number(due - now), number(starts_in), dimension, number(limit), number(record.interval) }
end

local function wait_behind()
  local due = min(due_after(ahead, now), now + longest_ticket())
  record.line = joined(ahead, { process, due }, behind)
  return denial(due, due - now, 0, 0)
end

-- A ticket: at the head of the line to who got nothing, else behind the others.
local function deny(outcome, patience, large, served)
  local wait, need = outcome.start - now, outcome.need[INPUT]
  local impatient = wait > max(pacing_horizon, patience)
  if impatient and outcome.binding == INPUT and need <= record.capacity[INPUT] then
    record.saving_for, record.saving_until = need, now + pacing_saving_longest
  end
  local due = now + max(gap(), wait - pacing_horizon)
  if served and #behind > 0 then
    due = due_after(behind, due)
  elseif served then
    due = max(due, now + pacing_batch_interval)
  end
  due = min(due, now + longest_ticket())
  record.line = served and joined(behind, { process, due }, {}) or joined({}, { process, due }, behind)
  if large > 0 then return denial(due, wait, large, MINUTE * record.rate[large]) end
  return denial(due, wait, outcome.binding, 0)
end

------------------------------------------------------------------------------------------------ the answer

local function granted_before()
  local waits = {}
  for place = FIRST, #ARGV, WIDTH do
    local packed = redis.call('HGET', KEYS[3], ARGV[place])
    if not packed then break end
    waits[#waits + 1] = number(max(0, unpack_reservation(packed).start - now))
  end
  return waits
end

local function grant()
  local waits, writes = {}, {}
  local refusal = {}
  for place = FIRST, #ARGV, WIDTH do
    local permit, patience = ARGV[place], tonumber(ARGV[place + 4])
    local amounts = { tonumber(ARGV[place + 1]), tonumber(ARGV[place + 2]), tonumber(ARGV[place + 3]) }
    local outcome, large = plan(amounts), too_large(amounts)
    if large > 0 or outcome.start - now > min(pacing_horizon, patience) then
      refusal = deny(outcome, patience, large, #waits > 0)
      break
    end
    waits[#waits + 1] = number(outcome.start - now)
    writes[#writes + 1] = permit
    writes[#writes + 1] = commit(permit, outcome, amounts)
  end
  if #writes > 0 then
    redis.call('HSET', KEYS[3], unpack(writes))
    redis.call('EXPIRE', KEYS[3], IDLE)
  end
  return waits, refusal
end

local waits, refusal = {}, {}
if record.moment > now + pacing_horizon + pacing_clock_back then
  record = fresh_record(now, ceilings(3)) -- the clock went back
end
adopt_ceilings(ceilings(3))
restart_when_cold()
roll_minute()
recover(record, now)
part_line()
if not ARGV[FIRST] then
  record.line = joined(ahead, nil, behind)
elseif redis.call('HEXISTS', KEYS[3], ARGV[FIRST]) == 1 then
  waits = granted_before()
elseif #ahead > 0 then
  refusal = wait_behind()
else
  record.line = behind
  waits, refusal = grant()
end
redis.call('ZADD', KEYS[2], number(now), process)
redis.call('EXPIRE', KEYS[2], IDLE)
save_record(KEYS[1], record)
local generation, paused_for = pulse(record, now)
return { waits, refusal, generation, paused_for }
