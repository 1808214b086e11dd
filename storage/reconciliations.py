"""The runs of reconciliation as they are kept, and where the next one goes on. Run by Postgres.call."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final
from uuid import UUID

from tocsin.storage.database import cursor
from tocsin.storage.moments import ms_of

_COLUMNS: Final = (
    "id, started_at, ended_at, started_by, repair, whole, ledger, actual, difference, not_judged, in_sync, checks,"
    " worst, providers, preflight"
)
_STORE: Final = f"""
insert into reconciliations ({_COLUMNS})
values (%s, tocsin_time(%s), tocsin_time(%s), %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
"""  # noqa: S608  # made of constants
_KEEP_PLACE: Final = """
insert into reconciliation_place (place) values (%s) on conflict (one) do update set place = excluded.place
"""
_FORGET: Final = """
delete from reconciliations where id in (
  select id from reconciliations where started_at < now() - %s * interval '1 millisecond' order by started_at limit 1000
)
"""


@dataclass(slots=True)
class Check:
    """One kind of difference: how many there were, and how many of them were mended."""

    before: int = 0
    repaired: int = 0
    not_judged: int = 0
    """What could merely be late, because Postgres had not heard of everything yet."""

    @property
    def after(self) -> int:
        return self.before - self.repaired


@dataclass(frozen=True, slots=True)
class Affected:
    """An event, and how many differences were of it."""

    event: str
    count: int


@dataclass(frozen=True, slots=True)
class Report:
    """One run; times in ms. `whole` is False when its time was over before everything was looked at."""

    id: UUID
    started_ms: int
    ended_ms: int
    by: str
    repair: bool
    whole: bool
    ledger: int
    """Deliveries that are open in Postgres."""
    actual: int
    """Those that Redis has in motion."""
    difference: int
    not_judged: int
    in_sync: bool
    checks: Mapping[str, Check]
    worst: Sequence[Affected]
    providers: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """What was counted at each provider."""
    preflight: Mapping[str, Any] | None = None


@dataclass(slots=True)
class Place:
    """Where the next run goes on, and what was seen for the first time: name to [run, ms]."""

    cursors: dict[str, str] = field(default_factory=dict)
    suspects: dict[str, tuple[str, int]] = field(default_factory=dict)


def store(report: Report, place: Place, *, keep_ms: int) -> None:
    """Keeps a run and where it stopped, and forgets runs that are older than `keep_ms`."""
    checks = {name: asdict(check) for name, check in report.checks.items()}
    worst = [asdict(each) for each in report.worst]
    with cursor() as query:
        query.execute(
            _STORE,
            (
                *(str(report.id), report.started_ms, report.ended_ms, report.by, report.repair, report.whole),
                *(report.ledger, report.actual, report.difference, report.not_judged, report.in_sync),
                *(json.dumps(checks), json.dumps(worst), json.dumps(report.providers)),
                json.dumps(report.preflight) if report.preflight else None,
            ),
        )
        query.execute(_KEEP_PLACE, (json.dumps({"cursors": place.cursors, "suspects": place.suspects}),))
        query.execute(_FORGET, (keep_ms,))


def place() -> Place:
    """Where the last run stopped."""
    with cursor() as query:
        query.execute("select place from reconciliation_place")
        found = query.fetchone()
    if found is None:
        return Place()
    suspects = {name: (run, int(at_ms)) for name, (run, at_ms) in found[0]["suspects"].items()}
    return Place(dict(found[0]["cursors"]), suspects)


def report(identifier: UUID) -> Report | None:
    """One run."""
    with cursor() as query:
        query.execute(f"select {_COLUMNS} from reconciliations where id = %s", (str(identifier),))  # noqa: S608
        found = query.fetchone()
    return _report(found) if found else None


def reports(limit: int, before: tuple[int, UUID] | None = None) -> list[Report]:
    """Up to `limit` runs, the newest first, those before one that began at (ms, id)."""
    where, values = "", []
    if before is not None:
        where, values = "where (started_at, id) < (tocsin_time(%s), %s::uuid)", [before[0], str(before[1])]
    with cursor() as query:
        query.execute(
            f"select {_COLUMNS} from reconciliations {where} order by started_at desc, id desc limit %s",  # noqa: S608
            (*values, limit),
        )
        return [_report(row) for row in query.fetchall()]


def _report(row: Sequence[Any]) -> Report:
    identifier, started, ended, by, repair, whole, *figures, in_sync, checks, worst, providers, preflight = row
    started_ms, ended_ms = ms_of(started), ms_of(ended)
    ledger, actual, difference, not_judged = figures
    return Report(
        id=UUID(str(identifier)),
        started_ms=started_ms or 0,
        ended_ms=ended_ms or 0,
        by=by,
        repair=repair,
        whole=whole,
        ledger=ledger,
        actual=actual,
        difference=difference,
        not_judged=not_judged,
        in_sync=in_sync,
        checks={name: Check(**check) for name, check in checks.items()},
        worst=[Affected(**each) for each in worst],
        providers=providers,
        preflight=preflight,
    )
