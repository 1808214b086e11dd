"""The check that Redis was taken for lost for a reason."""

from tests.torture.check import Check, Rules
from tests.torture.evidence import Evidence

RULES = Rules("processes")

_NOTICED_MS = 15_000
"""How long after something was done to Redis a loss may be noticed, on a slow machine."""


@RULES.add("Redis was taken for lost only where something was done to it")
def lost_for_a_reason(evidence: Evidence, check: Check) -> None:
    done = [fault for fault in evidence.ledger.faults if fault.target == "redis"]
    for cause, lost_ms in evidence.losses:
        check.looked_at += 1
        if not any(fault.at_ms <= lost_ms <= fault.until_ms + _NOTICED_MS for fault in done):
            check.wrong.append(("", f"it was rebuilt as {cause} at {lost_ms}, and nothing had been done to it"))
