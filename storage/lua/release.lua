-- Hands back claims of which no provider was called: they may start again at once, or after a delay while their data is
-- missing. One that counts as begun is the same attempt again: its holder never heard that it began (actors/send.py), or
-- heard it too late. Their tokens go back to the provider's bucket.
-- ARGV: namespace, token, delay_ms, breaker or '', limit of the provider's rate or '', then for each: id, step.

free_first()
local token, delay = ARGV[2], tonumber(ARGV[3])
local breaker = load_breaker(ARGV[4])
local freed = 0
for position = 6, #ARGV, 2 do
  end_trial(breaker, token, ARGV[position], ARGV[position + 1])
  local flight = load_flight(ARGV[position])
  local step = flight and find_step(flight, tonumber(ARGV[position + 1]))
  if step and step.token == token and (step.status == 'A' or step.status == 'G') then
    step.status, step.time, step.token = step.attempt > 1 and 'R' or 'Q', now + delay, ''
    wait_in_channel(flight, step)
    save_flight(flight)
    freed = freed + 1
  end
end
give_back_tokens(load_bucket(ARGV[5]), freed, token)
return 1
