"""What must be true at the end of a run, whatever was done to it: the invariants of docs/reliability.md.

tests/torture/test_checks.py feeds each check a lie.
"""

from tests.torture import counted, invariants, kept, losses
from tests.torture.check import Check
from tests.torture.evidence import Evidence

_ALL = (kept.RULES, invariants.RULES, counted.RULES, losses.RULES)


def check_all(evidence: Evidence) -> list[Check]:
    """Every check, group by group."""
    return [check_one(evidence, name) for rules in _ALL for name in rules.named]


def check_one(evidence: Evidence, name: str) -> Check:
    rules = next(each for each in _ALL if name in each.named)
    check = Check(name, rules.group)
    rules.named[name](evidence, check)
    return check
