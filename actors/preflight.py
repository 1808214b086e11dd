"""Pre-flight (R7): what is due in some minutes is looked at beforehand, while something can be done about it."""

from collections import Counter
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import UUID

from tocsin.domain import ids
from tocsin.domain.delivery import Channel, Reason
from tocsin.domain.event import Contact, Event
from tocsin.domain.preferences import allows
from tocsin.storage import ledger
from tocsin.storage.flight_parts import SeenFlight, SeenStep
from tocsin.storage.scripts import MOST_ITEMS
from tocsin.storage.store import Store

MOST: Final = 2_000
_MOST_EVENTS: Final = 10


@dataclass(slots=True)
class Preflight:
    """What is due between two times (ms), and what stands in its way, by reason: those that are not wanted any more
    (read, cancelled), and those that could not go out. `whole` is False when there was more than is looked at."""

    from_ms: int
    to_ms: int
    due: int = 0
    whole: bool = True
    hindered: Counter[Reason] = field(default_factory=Counter)
    events: Counter[str] = field(default_factory=Counter)

    def as_json(self) -> dict[str, Any]:
        """As it is kept."""
        return {
            "from": self.from_ms,
            "to": self.to_ms,
            "due": self.due,
            "whole": self.whole,
            "hindered": {str(reason): count for reason, count in self.hindered.most_common()},
            "events": [{"event": event, "count": count} for event, count in self.events.most_common(_MOST_EVENTS)],
        }


@dataclass(frozen=True, slots=True)
class _Due:
    """A step that is due, and the delivery that it is."""

    flight: SeenFlight
    step: SeenStep

    @property
    def channel(self) -> Channel:
        return Channel(self.step.channel)

    @property
    def delivery(self) -> str:
        return ids.delivery_id_text(self.flight.notification, self.step.number, self.step.channel)

    @property
    def person(self) -> tuple[UUID, str]:
        return UUID(self.flight.event), self.flight.user


async def look_ahead(store: Store, configured: Mapping[Channel, bool]) -> Preflight:
    """What is due in `reconcile.preflight_from` to `preflight_to`. `configured` are the channels that have a provider.
    Raises RedisAway and PostgresAway."""
    settings = store.settings.reconcile
    now_ms = await store.flights.now_ms()
    seen = Preflight(now_ms + settings.preflight_from, now_ms + settings.preflight_to)
    notes = await store.motion.due_between(seen.from_ms, seen.to_ms, MOST + 1)
    seen.whole = len(notes) <= MOST
    resting = {each.channel for each in await store.breakers.resting()}
    for first in range(0, min(len(notes), MOST), MOST_ITEMS):
        flights = await store.motion.flights(notes[first : first + MOST_ITEMS])
        due = [
            _Due(flight, step)
            for flight in flights.values()
            for step in flight.steps
            if step.waits and seen.from_ms <= step.time_ms <= seen.to_ms
        ]
        await _judge(store, due, configured, resting, seen)
    return seen


async def _judge(
    store: Store,
    due: Sequence[_Due],
    configured: Mapping[Channel, bool],
    resting: Set[Channel],
    seen: Preflight,
) -> None:
    if not due:
        return
    unwanted = await store.postgres.call(ledger.unwanted, [each.delivery for each in due])
    events = await store.events({each.person[0] for each in due})
    people = await store.people.reached(
        [each.person for each in due], [event for event in events if events[event].audience]
    )
    for each in due:
        seen.due += 1
        reason = (
            unwanted.get(each.delivery)
            or _unreachable(each, events.get(each.person[0]), people.get(each.person))
            or _not_carried(each, configured, resting)
        )
        if reason is not None:
            seen.hindered[Reason(reason)] += 1
            seen.events[each.flight.event] += 1


def _unreachable(due: _Due, event: Event | None, person: Contact | None) -> Reason | None:
    if event is None:
        return Reason.MISSING
    if person is None:
        return Reason.UNKNOWN_USER
    if not person.active:
        return Reason.INACTIVE
    if not allows(person.opt_outs, due.channel, event.type, mandatory=event.mandatory):
        return Reason.OPTED_OUT
    return None if due.channel in person.addresses() else Reason.NO_ADDRESS


def _not_carried(due: _Due, configured: Mapping[Channel, bool], resting: Set[Channel]) -> Reason | None:
    if due.channel is Channel.IN_APP:
        return None
    if not configured.get(due.channel, False):
        return Reason.NOT_CONFIGURED
    return Reason.PROVIDER_DOWN if due.channel in resting else None
