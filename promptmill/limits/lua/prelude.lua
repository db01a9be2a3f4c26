-- What every script of the limiter shares: the pool's record, its rates, and the give and take of permits.
-- scripts.py puts above this text the numbers of `Pacing`, as locals named pacing_<field>, and the layout of
-- records.py, as pack_record, unpack_record, pack_reservation and unpack_reservation; and one script below it.
--
-- Keys of a pool, all with one hash tag, so that they lie in one slot of a Redis Cluster:
--   promptmill:limit:{account:group}:record             string  PoolRecord of records.py: doubles in order, then
--                                                               the line as "process due process due "
--   promptmill:limit:{account:group}:processes          zset    process -> moment of its last heartbeat
--   promptmill:limit:{account:group}:permits:<process>  hash    permit -> Reservation of records.py: doubles in order
--   promptmill:limit:{account:group}:expired:<process>  hash    the same, of a process that died; its calls may
--                                                               still have been made, and may still be settled
-- and one key beside them, which no script touches together with those of a pool:
--   promptmill:limit:pools                              zset    account:group -> moment of its last use
-- Every key expires: see IDLE and the scripts.
--
-- The Python of the same functions is in rates.py, planning.py, corrections.py and line.py; the differential
-- test compares the two after every step.

local IDLE = 86400         -- s without any use after which a pool is forgotten
local LEARN, ABSENT, NEVER = -1, -1, -1
local INPUT, OUTPUT = 2, 3
local MINUTE = 60
local max, min, sqrt, exp, abs = math.max, math.min, math.sqrt, math.exp, math.abs

-- The only clock is Redis's own; tests pass a moment of theirs.
local function clock(given)
  if given and given ~= '' then return tonumber(given) end
  local time = redis.call('TIME')
  return tonumber(time[1]) + tonumber(time[2]) / 1e6
end

local function number(value) return string.format('%.9f', value) end

---------------------------------------------------------------------------------------------- the record

local function rate_in_force(record, index)
  local ceiling, learned = record.ceiling[index], record.learned[index]
  if ceiling == 0 then return 0 end
  if ceiling > 0 then return learned > 0 and min(ceiling, learned) or ceiling end
  if learned == ABSENT then return 0 end
  return learned > 0 and learned or default_limits[index] / MINUTE
end

local function default_in_force(record, index) return record.ceiling[index] == LEARN and record.learned[index] == 0 end

-- Seconds of pace for a handful of average calls, where the server itself has just said what there is.
local function head_start(record, index)
  if record.ceiling[index] ~= LEARN or record.learned[index] <= 0 then return 0 end
  local handful = pacing_first_calls * record.mean_cost[index]
  return min(pacing_tolerance[index], handful / (pacing_ramp_start * record.learned[index]))
end

-- Begin to limit one dimension, at the rate that is in force for it.
local function open_dimension(record, index, now)
  local rate = rate_in_force(record, index)
  local seconds = default_in_force(record, index) and pacing_default_capacity or pacing_first_capacity
  local capacity = max(index == 1 and 1 or 0, seconds * rate)
  record.corrected[index] = record.corrected[index] + (capacity - record.level[index])
  record.rate[index], record.capacity[index], record.level[index] = rate, capacity, capacity
  record.pacer[index] = now + pacing_tolerance[index] - head_start(record, index)
  record.seen_at[index], record.full_seen[index], record.foreign[index] = NEVER, 0, 0
end

-- A pool of which nothing is known: half a second of capacity, a gentle start, no burst. Where not even a limit is
-- known, the default limits are gentle enough without a ramp.
local function fresh_record(now, ceiling)
  local record = {
    layout = LAYOUT, epoch = now, moment = now, generation = 1 + math.floor(1000 * now), paused_until = 0,
    ceiling = ceiling, learned = { 0, 0, 0 }, probed = { 0, 0, 0 }, told_at = NEVER, unstated = { 0, 0, 0 }, rate = { 0, 0, 0 }, capacity = { 0, 0, 0 }, level = { 0, 0, 0 },
    pacer = { 0, 0, 0 }, corrected = { 0, 0, 0 }, foreign = { 0, 0, 0 }, seen_at = { 0, 0, 0 },
    full_seen = { 0, 0, 0 }, overdrive = { 0, 0, 0 }, mean_cost = { 0, 0, 0 },
    minute_used = { 0, 0, 0 }, minute_before = { 0, 0, 0 }, minute_began = now,
    ramp_from = max(unpack(ceiling)) > 0 and pacing_ramp_start or 1, ramp_at = now, easing = 1, eased_at = now, cut_at = now - pacing_easing_interval,
    refused_since = NEVER, outage_from = 0,
    in_flight = 0, output_in_flight = 0, input_variance = 0, interval = 0.5,
    request_jitter = pacing_request_jitter, input_answers = 0, input_asked = 0, input_used = 0, input_error = 0,
    output_answers = 0, output_asked = 0, output_used = 0, output_variance = 0, output_mean = 0, latency = 0,
    headerless = 0, saving_for = 0, saving_until = 0, line = {},
  }
  for index = 1, 3 do
    record.overdrive[index] = ceiling[index] == LEARN and pacing_overdrive[index] or 0
    open_dimension(record, index, now)
  end
  return record
end

-- The record as it lies in Redis; nil where there is none of this layout. An older one may be replaced. A newer one
-- belongs to processes that know better: this one fails, and neither grants nor changes anything.
local function read_record(key)
  local packed = redis.call('GET', key)
  local layout = packed and struct.unpack('<d', packed)
  if layout == LAYOUT then return packed end
  if layout and layout > LAYOUT and layout < LAYOUT + 1000 and layout % 1 == 0 then error(NEWER, 0) end
  return nil
end

-- The record, or a fresh one.
local function load_record(key, now, ceiling)
  local packed = read_record(key)
  if not packed then return fresh_record(now, ceiling) end
  local record = unpack_record(packed)
  record.line = {}
  if #packed > RECORD_BYTES then
    for process, due in string.gmatch(string.sub(packed, RECORD_BYTES + 1), '(%S+) (%S+)') do
      record.line[#record.line + 1] = { process, tonumber(due) }
    end
  end
  return record
end

local function save_record(key, record)
  local packed = pack_record(record)
  for _, turn in ipairs(record.line) do packed = packed .. string.format('%s %.6f ', turn[1], turn[2]) end
  redis.call('SET', key, packed, 'EX', IDLE)
end

-- Three numbers per second from arguments as Python sends them: -1 learn, 0 no limit.
local function ceilings(first)
  return { tonumber(ARGV[first]), tonumber(ARGV[first + 1]), tonumber(ARGV[first + 2]) }
end

-- The pulse that every reply ends with: generation, seconds that the pause still lasts.
local function pulse(record, now)
  return string.format('%d', record.generation), number(max(0, record.paused_until - now))
end

--------------------------------------------------------------------------------------------------- rates

local function ramp(record, at)
  return min(1, record.ramp_from * 2 ^ (max(0, at - record.ramp_at) / pacing_ramp_doubling))
end

-- Whether nothing succeeds: 529s for long, and no answer. After a long time without either, nobody knows.
local function in_outage(record, now)
  local lasting = record.refused_since ~= NEVER and record.cut_at >= record.outage_from
  return lasting and now - record.cut_at <= pacing_idle_restart
end

local function recover(record, now)
  if not in_outage(record, now) then
    record.easing = min(1, record.easing + pacing_easing_recovery * max(0, now - record.eased_at))
  end
  record.eased_at = now
end

local function hold_pace_until(record, moment)
  for index = 1, 3 do record.pacer[index] = max(record.pacer[index], moment + pacing_tolerance[index]) end
end

-- Approach the limits as at a start, without saved-up pace.
local function begin_gently(record, now)
  record.ramp_at, record.ramp_from = now, pacing_ramp_start
  hold_pace_until(record, now)
end

local function server_rate(record, index)
  return record.learned[index] > 0 and record.learned[index] or record.rate[index]
end

-- Whether somebody else is known to draw on the same limit.
local function is_shared(record, index)
  local foreign = record.foreign[index]
  return foreign > 0 and foreign >= pacing_foreign_noticed * server_rate(record, index)
end

local function refill(record, index)
  return max(pacing_refill_floor * record.rate[index], server_rate(record, index) - record.foreign[index])
end

local function at_least_one(index, capacity) return index == 1 and max(1, capacity) or capacity end

local SAME = 1e-9 -- relative difference below which two limits are the same

-- Put one limit in force. What was a guess, or no limit at all, tells nothing: the dimension begins anew. Where a
-- ceiling was adopted, the seconds used of the pacer stay used.
local function update_rate(record, index, now, begin, adopted)
  local before, after, used = record.rate[index], rate_in_force(record, index), record.pacer[index]
  if after == 0 then
    record.rate[index] = 0
    return
  end
  if begin then
    open_dimension(record, index, now)
    if adopted then record.pacer[index] = max(record.pacer[index], used) end
  elseif abs(after - before) > SAME * before then
    record.rate[index] = after
    record.capacity[index] = at_least_one(index, record.capacity[index] * after / before)
    -- The pacer counts seconds: what it still owes is worth as many tokens as before.
    local owed = adopted and 0 or max(0, used - pacing_tolerance[index] - now)
    record.pacer[index] = used + owed * (before / after - 1)
  end
  if record.learned[index] > 0 then
    record.capacity[index] = min(record.capacity[index], at_least_one(index, MINUTE * record.learned[index]))
  end
  record.level[index] = min(record.level[index], record.capacity[index])
end

local function guesses(record)
  return { default_in_force(record, 1), default_in_force(record, 2), default_in_force(record, 3) }
end

-- A limit that rises is approached as a start is; one that falls holds at once.
local function update_rates(record, guessed, now, adopted)
  local growth = 0
  for index = 1, 3 do
    local before = record.rate[index]
    local known = guessed[index] and not default_in_force(record, index)
    update_rate(record, index, now, known or before == 0, adopted)
    if before > 0 then
      local after = record.rate[index]
      growth = max(growth, after == 0 and math.huge or after / before)
    end
  end
  if growth == 0 or abs(growth - 1) <= SAME then return end
  local reached = ramp(record, now)
  if growth > 1 then
    record.ramp_from = min(reached, max(pacing_ramp_start, reached / growth))
  else
    record.ramp_from = min(1, reached / growth)
  end
  record.ramp_at = max(now, record.paused_until)
end

-- Another limit may come with another bucket: the next header is taken as the first one of it.
local function note_limit(record, index, limit, probed)
  if limit ~= record.learned[index] then
    record.learned[index], record.probed[index], record.seen_at[index] = limit, probed, NEVER
  end
end

-- Limits per minute from three arguments; an empty one says nothing.
local function limits_said(first) return { tonumber(ARGV[first]), tonumber(ARGV[first + 1]), tonumber(ARGV[first + 2]) } end

-- Limits from a header of a call that began at `start` (nil: unknown); only one that began after the call that taught
-- the limits has news. What headers leave out for long, while they state others, is none.
local function learn_limits(record, first, start, now)
  if record.told_at ~= NEVER and (not start or start < record.told_at) then return end
  local guessed, limits = guesses(record), limits_said(first)
  local any = max(limits[1] or 0, limits[2] or 0, limits[3] or 0) > 0
  if start and any then record.told_at = start end
  for index = 1, 3 do
    local limit = limits[index] or 0
    if limit > 0 then
      record.unstated[index] = 0
      note_limit(record, index, limit / MINUTE, 0)
    elseif any then
      record.unstated[index] = record.unstated[index] + 1
      if record.learned[index] == 0 and record.unstated[index] >= pacing_headerless_answers then
        record.learned[index] = ABSENT
      end
    end
  end
  update_rates(record, guessed, now)
end

-- Limits from the Rate Limits API, where 0 is no limit, unless a header said otherwise.
local function learn_probed(record, first, now)
  record.told_at = now
  local guessed, limits = guesses(record), limits_said(first)
  for index = 1, 3 do
    local limit = limits[index]
    if limit and limit > 0 then
      note_limit(record, index, limit / MINUTE, 1)
    elseif limit and (record.learned[index] <= 0 or record.probed[index] ~= 0) then
      note_limit(record, index, ABSENT, 1)
    end
  end
  update_rates(record, guessed, now)
end

--------------------------------------------------------------------------------------------- what is known

local function output_variance(record)
  return record.output_answers > pacing_first_answers and record.output_variance or 0
end

local function unproduced_share(record)
  if record.output_mean < 1 then return 0.5 end
  return max(0, 1 - output_variance(record) / record.output_mean ^ 2) / 2
end

------------------------------------------------------------------------------------------- give and take

-- A permit leaves what is in flight; what it was charged stays charged.
local function leave(record, held)
  record.in_flight = record.in_flight - 1
  record.output_in_flight = record.output_in_flight - held.amounts[OUTPUT]
  if held.input_settled == 0 then record.input_variance = max(0, record.input_variance - held.input_variance) end
end

-- Seconds of pace that a permit was charged, in seconds of the limit in force now, but no more than it was charged.
local function pace_charged(record, held, index)
  return held.pace[index] * min(1, held.rate[index] / record.rate[index])
end

-- Undo the tokens of a grant of which the server counted none, but for input that is settled. Nothing is learned.
local function take_back_tokens(record, held)
  for index = held.input_settled == 0 and INPUT or OUTPUT, OUTPUT do
    record.minute_used[index] = record.minute_used[index] - held.amounts[index]
    if record.rate[index] > 0 and held.rate[index] > 0 then
      record.level[index] = min(record.capacity[index], record.level[index] + held.amounts[index])
      record.pacer[index] = record.pacer[index] - pace_charged(record, held, index)
    end
  end
end

-- Undo a whole grant. Requests keep their pace: two calls may never start closer than the limit's interval. Where
-- the answer had begun, the request was counted.
local function take_back(record, held)
  if held.input_settled == 0 then
    record.minute_used[1] = record.minute_used[1] - held.amounts[1]
    if record.rate[1] > 0 and held.rate[1] > 0 then record.level[1] = min(record.capacity[1], record.level[1] + held.amounts[1]) end
  end
  take_back_tokens(record, held)
end

-- A reservation of another layout belongs to a record that was replaced.
local function is_reservation(packed) return packed and #packed == RESERVATION_BYTES end

-- Find a permit among the living and the expired: its reservation, and the key it lies in.
local function find_permit(permits_key, expired_key, permit)
  local packed = redis.call('HGET', permits_key, permit)
  if is_reservation(packed) then return unpack_reservation(packed), permits_key end
  packed = redis.call('HGET', expired_key, permit)
  if is_reservation(packed) then return unpack_reservation(packed), expired_key end
  return nil, nil
end

-- Forget a permit that was found; an expired one has left what is in flight already.
local function close_permit(record, held, key, permits_key, permit)
  redis.call('HDEL', key, permit)
  if key == permits_key and held.epoch == record.epoch then leave(record, held) end
end
