-- Records how attempts ended. The fact is always appended; the flight moves on only if the attempt is still its own.
-- ARGV: namespace, then for each: token, id, step, channel, attempt, status, detail as JSON,
--       delay_ms until the next attempt or '' for none, why it waits.
-- Answers '1' for each that will be tried again, else '0'.

free_first()
local answers = {}
for position = 2, #ARGV, 9 do
  local token, id, attempt = ARGV[position], ARGV[position + 1], tonumber(ARGV[position + 4])
  local told, closing = { number = tonumber(ARGV[position + 2]), channel = ARGV[position + 3] }, ARGV[position + 5]
  tell_move(id, told, attempt, closing, ARGV[position + 6])
  local flight = load_flight(id)
  local step = flight and find_step(flight, told.number)
  local again = '0'
  local mine = step and (step.token == token or step.token == LOST) and step.attempt == attempt
  if mine and is_final(join(status_of(step), closing)) then
    local delay = tonumber(ARGV[position + 7])
    if delay and flight.read == 0 and not is_cancelled(flight.event) then
      step.attempt, step.status, step.time, step.token = attempt + 1, 'R', now + delay, ''
      tell_move(id, step, step.attempt, 'RETRYING', because_until(ARGV[position + 8], step.time))
      wait_in_channel(flight, step)
      again = '1'
    else
      if delay then
        tell_move(id, step, attempt + 1, 'CANCELLED', because(flight.read > 0 and 'read' or 'cancelled'))
      end
      end_step(flight, step)
    end
    save_flight(flight)
  end
  table.insert(answers, again)
end
append_facts()
return answers
