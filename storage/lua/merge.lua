-- The order of statuses within one attempt, as domain/delivery.py has it, by the letters that flights use.

local STATUSES = {
  W = 'SCHEDULED', Q = 'QUEUED', R = 'RETRYING', G = 'SENDING', U = 'UNCERTAIN', P = 'SUPPRESSED', C = 'CANCELLED',
  F = 'FAILED', D = 'DEAD', S = 'SENT', V = 'DELIVERED', B = 'BOUNCED',
}
local RANKS = {
  SCHEDULED = 0, QUEUED = 1, RETRYING = 2, SENDING = 3, UNCERTAIN = 4, SUPPRESSED = 5, CANCELLED = 6,
  FAILED = 7, DEAD = 8, SENT = 9, DELIVERED = 10, BOUNCED = 11,
}

-- Of two statuses of one attempt the one that supersedes the other.
local function join(one, other)
  return RANKS[other] > RANKS[one] and other or one
end

local function is_final(status)
  return RANKS[status] >= RANKS.UNCERTAIN
end

-- The status that a step's letter stands for; A, claimed and not begun, is still one that may start.
local function status_of(step)
  return step.status == 'A' and STATUSES.Q or STATUSES[step.status]
end
