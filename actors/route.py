"""route(event, n): turns one chunk of recipients into notifications with their plans (design §5.3)."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Final
from uuid import UUID

from loguru import logger

from tocsin.actors import queues
from tocsin.actors.outages import say
from tocsin.domain import ids
from tocsin.domain.delivery import Channel, Reason
from tocsin.domain.errors import Unavailable
from tocsin.domain.event import Contact, Event, Recipient, addresses_of, devices_as_address
from tocsin.domain.plan import Plan, PlannedStep, plan_for
from tocsin.domain.preferences import allows
from tocsin.storage.calls import correlation
from tocsin.storage.flight_parts import Chunk, Routed, Routing
from tocsin.storage.found import Found
from tocsin.storage.memory import Work
from tocsin.storage.scripts import Step
from tocsin.storage.store import Store

_ADDRESSED: Final = (Channel.PUSH, Channel.SMS, Channel.EMAIL)
"""The channels whose addresses are not the user's id, as a planner gathers them."""


async def route(
    store: Store, event_id: str, chunk: int, known: Chunk | None = None, later: list[Step] | None = None
) -> None:
    """Routes a chunk once, however often it is called. Who made it may know what is in it, and may give a list for what
    is to be called then."""
    identifier = UUID(event_id)
    entry = f"c:{event_id}:{chunk}"
    try:
        calls = await _route(store, identifier, chunk, known)
        if later is not None:
            later += calls
            return
        # A call that fails now is made again by who looks at the time index.
        with suppress(Unavailable):
            await store.calls.put_all(calls)
    except Unavailable as error:
        say("routing", error)
        await _wait(store, entry, identifier, error=None)
    except Exception as error:
        logger.exception("chunk {} of {} failed", chunk, event_id)
        await _wait(store, entry, identifier, error=type(error).__name__)


async def _route(store: Store, identifier: UUID, chunk: int, known: Chunk | None) -> list[Step]:
    await store.memory.check(Work.PLAN)
    found = known or await store.flights.to_route(identifier, chunk)
    if found is None:
        return []
    event, people = found.event, found.people
    correlation.set(event.cid)
    named = named_among(people)
    contacts = await store.people.contacts_of(named, found.contacts) if named else {}
    routings = planned(event, people, contacts)
    answer = await store.flights.route(event, chunk, routings, found.entry, [store.persister_call()])
    return list(calls_after(store, [(event, answer)])) if answer else []


def named_among(people: Iterable[Recipient | Found]) -> list[Recipient]:
    """Those of a chunk who were named, and not found in an audience."""
    return [person for person in people if isinstance(person, Recipient)]


def planned(event: Event, people: Iterable[Recipient | Found], contacts: Mapping[str, Contact]) -> list[Routing]:
    """A notification for each of `people`; who was named and is not in `contacts`, which has those who are stored, is
    nobody we know but by what was given inline."""
    planner = _Planner(event)
    return [
        planner.of_found(person) if isinstance(person, Found) else planner.of_named(person, contacts.get(person.id))
        for person in people
    ]


def calls_after(store: Store, routed: Sequence[tuple[Event, Routed]]) -> Iterator[Step]:
    """What is to be called after chunks of events were routed: each channel with something ready once."""
    waking: dict[Channel, Event] = {}
    for event, answer in routed:
        if answer.resume:
            yield store.calls.step(queues.GO_ON, "go_on", str(event.id), "", cid=event.cid)
        for channel in answer.ready:
            waking.setdefault(channel, event)
    for channel, event in waking.items():
        queue = queues.of_channel(channel)
        yield store.calls.step(queue, queue, most_waiting=2, cid=event.cid)


class _Planner:
    """Plans an event for one person after the other; a plan is made once for all who are reached alike, as most are."""

    def __init__(self, event: Event) -> None:
        self._event = event
        self._id_of = ids.notification_ids(str(event.id))
        self._plans: dict[tuple[object, ...], Plan] = {}
        self._places = [_ADDRESSED.index(step.channel) for step in event.steps if step.channel in _ADDRESSED]

    def of_named(self, person: Recipient, contact: Contact | None) -> Routing:
        """The notification of somebody who was named, perhaps with details; `contact` is None for who is not stored."""
        if contact is None:
            return self._routing(person.id, 0, person.phone, person.email, known=person.inline)
        devices, phone, email = len(contact.tokens), person.phone or contact.phone, person.email or contact.email
        return self._routing(person.id, devices, phone, email, active=contact.active, opt_outs=contact.opt_outs)

    def of_found(self, person: Found) -> Routing:
        """The notification of somebody of the audience."""
        user, active, email, phone, devices, opt_outs, known = person
        return self._routing(user, devices, phone, email, known=known, active=active, opt_outs=opt_outs)

    def _routing(
        self,
        user: str,
        devices: int,
        phone: str | None,
        email: str | None,
        *,
        known: bool = True,
        active: bool = True,
        opt_outs: Sequence[str] = (),
    ) -> Routing:
        given = (devices_as_address(devices), phone or None, email or None)
        alike = (devices > 0, not phone, not email, known, active, *opt_outs)
        plan = self._plans.get(alike)
        if plan is None:
            reachable = addresses_of(user, devices, phone, email)
            plan = self._plans[alike] = self._plan(reachable, opt_outs, known=known, active=active)
        return Routing(self._id_of(user), user, plan, [given[place] for place in self._places])

    def _plan(self, reachable: Collection[Channel], opt_outs: Sequence[str], *, known: bool, active: bool) -> Plan:
        event = self._event
        if not known:
            return tuple(
                PlannedStep(number, step.channel, step.after_ms, Reason.UNKNOWN_USER)
                for number, step in enumerate(event.steps, start=1)
            )
        return plan_for(
            event.steps,
            reachable,
            lambda channel: allows(opt_outs, channel, event.type, mandatory=event.mandatory),
            active=active,
        )


async def _wait(store: Store, entry: str, event: UUID, *, error: str | None) -> None:
    """A chunk whose people are not known yet waits without counting as failed. Where Redis does not hear of it, it is
    called again all the same, without having been counted."""
    try:
        await store.flights.back_off(entry, event, error=error)
    except Unavailable as away:
        say("routing", away)
