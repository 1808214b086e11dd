-- Records what became known of attempts from elsewhere: a provider's receipt, a look-up at the provider, a person's
-- word. The facts are always appended, in one entry with those given. A step whose outcome is known that way ends at
-- once, whoever holds it; one that waits for another attempt is not sent again once an earlier one is known to have
-- gone out.
-- ARGV: namespace, number of facts, facts as JSON, then for each: id, step, channel, attempt, status, word as JSON,
--       detail as JSON.
-- Answers '1' for each whose flight had something waiting or under way that ends by it, else '0'.

free_first()
local count = tonumber(ARGV[2])
for position = 3, 2 + count do
  tell(ARGV[position])
end

-- Whether the step is over by what was told of `attempt`.
local function ends(step, attempt, status)
  local went_out = status == 'SENT' or status == 'DELIVERED'
  if step.attempt == attempt then
    -- Even where Redis, set back, has not begun the attempt: a receipt proves that the provider had the message.
    return RANKS[status] > RANKS.UNCERTAIN
  end
  return went_out and step.status ~= 'G'
end

local answers = {}
for position = 3 + count, #ARGV, 7 do
  local id, attempt, status = ARGV[position], tonumber(ARGV[position + 3]), ARGV[position + 4]
  local told = { number = tonumber(ARGV[position + 1]), channel = ARGV[position + 2] }
  tell_move(id, told, attempt, status, ARGV[position + 6], ARGV[position + 5])
  local flight = load_flight(id)
  local step = flight and find_step(flight, told.number)
  local over = step and step.channel == told.channel and ends(step, attempt, status)
  if over then
    if step.attempt ~= attempt then
      tell_move(id, step, step.attempt, 'CANCELLED', because('settled'))
    end
    end_step(flight, step)
    save_flight(flight)
  end
  if RANKS[status] > RANKS.UNCERTAIN and is_between_lives() then
    end_between_lives(id, told.number, attempt, '')
  end
  table.insert(answers, over and '1' or '0')
end
append_facts()
return answers
