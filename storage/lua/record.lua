-- Records how attempts ended. The fact is appended and the flight moves on if the attempt is still its own. Of an
-- attempt that is not its own any more it is told too, and what went out after all is not sent once more; but not that
-- it failed while another holds the very same attempt: whoever says so lost its claim before it began.
-- ARGV: namespace, breaker rules (failures, rest_ms, cap_ms, successes), then for each: token, id, step, channel,
--       attempt, status, detail as JSON, delay_ms until the next attempt or '' for none, why it waits, breaker or '',
--       what it says of the provider ('up', 'down' or ''), for how many ms the provider asked to be left alone.
-- Answers '1' for each that will be tried again, else '0'; then what changed of breakers, for those who look
-- on; and last how far the journal is.
-- Between two lives of Redis flights are missing: what was to be tried again is told so, and restore.lua finds here
-- what ended meanwhile.

free_first()
local rules = {
  failures = tonumber(ARGV[2]), rest = tonumber(ARGV[3]), cap = tonumber(ARGV[4]), successes = tonumber(ARGV[5]),
}
local answers, breakers, changes = {}, {}, {}

local function judge_provider(position, mine)
  local name, id = ARGV[position + 9], ARGV[position + 1]
  if name == '' then
    return
  end
  local breaker = breakers[name] or load_breaker(name)
  breakers[name] = breaker
  local trial = end_trial(breaker, ARGV[position], id, ARGV[position + 2])
  table.insert(changes, judge(breaker, rules, ARGV[position + 10], tonumber(ARGV[position + 11]), mine, trial))
end

for position = 6, #ARGV, 12 do
  local token, id, attempt = ARGV[position], ARGV[position + 1], tonumber(ARGV[position + 4])
  local told, closing = { number = tonumber(ARGV[position + 2]), channel = ARGV[position + 3] }, ARGV[position + 5]
  local went_out = RANKS[closing] >= RANKS.SENT
  local flight = load_flight(id)
  local step = flight and find_step(flight, told.number)
  local again = '0'
  local mine = step and (step.token == token or step.token == LOST) and step.attempt == attempt
  if mine or went_out or closing == 'UNCERTAIN' or not step or step.attempt ~= attempt or is_between_lives() then
    tell_move(id, told, attempt, closing, ARGV[position + 6])
  end
  mine = mine and is_final(join(status_of(step), closing))
  judge_provider(position, mine)
  if mine then
    local delay, why = tonumber(ARGV[position + 7]), unwanted(flight)
    if delay and not why then
      step.attempt, step.status, step.time, step.token = attempt + 1, 'R', now + delay, ''
      tell_move(id, step, step.attempt, 'RETRYING', because_until(ARGV[position + 8], step.time))
      wait_in_channel(flight, step)
      again = '1'
    else
      if delay then
        tell_move(id, step, attempt + 1, 'CANCELLED', because(why))
      end
      end_step(flight, step)
    end
    save_flight(flight)
  elseif is_between_lives() then
    local delay = tonumber(ARGV[position + 7])
    if delay then
      tell_move(id, told, attempt + 1, 'RETRYING', because_until(ARGV[position + 8], now + delay))
    end
    end_between_lives(id, told.number, attempt, delay and int(now + delay) or '')
  elseif step and went_out and step.attempt >= attempt and step.status ~= 'G' then
    if step.attempt > attempt then
      tell_move(id, step, step.attempt, 'CANCELLED', because('settled'))
    end
    end_step(flight, step)
    save_flight(flight)
  end
  table.insert(answers, again)
end
for _, breaker in pairs(breakers) do
  save_breaker(breaker)
end
append_facts()
for _, change in ipairs(changes) do
  table.insert(answers, change)
end
return with_reached(answers)
