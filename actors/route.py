"""route(event, n): turns one chunk of recipients into notifications with their plans (design §5.3)."""

from collections.abc import Collection, Sequence
from contextlib import suppress
from uuid import UUID

from loguru import logger

from tocsin.actors import queues
from tocsin.actors.outages import say
from tocsin.domain import ids
from tocsin.domain.delivery import Channel, Reason
from tocsin.domain.errors import Unavailable
from tocsin.domain.event import Contact, Event, Recipient
from tocsin.domain.plan import Plan, PlannedStep, plan_for
from tocsin.domain.preferences import allows
from tocsin.storage.calls import correlation
from tocsin.storage.flight_parts import Routing
from tocsin.storage.found import Found
from tocsin.storage.memory import Work
from tocsin.storage.store import Store


async def route(store: Store, event_id: str, chunk: int) -> None:
    """Routes a chunk once, however often it is called."""
    identifier = UUID(event_id)
    entry = f"c:{event_id}:{chunk}"
    try:
        await _route(store, identifier, chunk)
    except Unavailable as error:
        say("routing", error)
        await _wait(store, entry, identifier, error=None)
    except Exception as error:
        logger.exception("chunk {} of {} failed", chunk, event_id)
        await _wait(store, entry, identifier, error=type(error).__name__)


async def _route(store: Store, identifier: UUID, chunk: int) -> None:
    await store.memory.check(Work.PLAN)
    found = await store.flights.to_route(identifier, chunk)
    if found is None:
        return
    event, people = found.event, found.people
    correlation.set(event.cid)
    named = [person for person in people if isinstance(person, Recipient)]
    contacts = await store.people.contacts_of(named) if named else {}
    await store.profiles.keep_inline(identifier, named, store.flights.keep_ms(event))
    planner = _Planner(event)
    routings = [
        planner.routing(person.id, person.contact)
        if isinstance(person, Found)
        else planner.routing(person.id, contacts.get(person.id), person)
        for person in people
    ]
    answer = await store.flights.route(event, chunk, routings, found.entry)
    if answer is None:
        return
    # A call that fails now is made again by who looks at the time index.
    with suppress(Unavailable):
        await _call_others(store, identifier, *answer)


async def _call_others(store: Store, event: UUID, resume: bool, ready: Sequence[Channel]) -> None:
    if resume:
        await store.calls.put(queues.FAN_OUT, "fan_out", str(event))
    for channel in ready:
        await store.calls.put(queues.of_channel(channel), queues.of_channel(channel), most_waiting=2)
    await store.nudge_persister()


class _Planner:
    """Plans an event for one person after the other; a plan is made once for all who are reached alike, as most are."""

    def __init__(self, event: Event) -> None:
        self._event = event
        self._id = str(event.id)
        self._plans: dict[tuple[object, ...], Plan] = {}
        self._addressed = [step.channel for step in event.steps if step.channel is not Channel.IN_APP]

    def routing(self, user: str, contact: Contact | None, given: Recipient | None = None) -> Routing:
        """The notification of `user`; `contact` is None for who is not known, `given` what a caller gave inline."""
        reached = contact.overlaid(given) if contact and given else contact
        addresses = reached.addresses() if reached else {}
        return Routing(
            ids.notification_id_text(self._id, user),
            user,
            self._plan(contact, addresses),
            [addresses.get(channel) for channel in self._addressed],
        )

    def _plan(self, contact: Contact | None, reachable: Collection[Channel]) -> Plan:
        alike = (*reachable, contact and (contact.active, contact.opt_outs))
        plan = self._plans.get(alike)
        if plan is None:
            plan = self._plans[alike] = self._plan_anew(contact, reachable)
        return plan

    def _plan_anew(self, contact: Contact | None, reachable: Collection[Channel]) -> Plan:
        event = self._event
        if contact is None:
            return tuple(
                PlannedStep(number, step.channel, step.after_ms, Reason.UNKNOWN_USER)
                for number, step in enumerate(event.steps, start=1)
            )
        return plan_for(
            event.steps,
            reachable,
            lambda channel: allows(contact.opt_outs, channel, event.type, mandatory=event.mandatory),
            active=contact.active,
        )


async def _wait(store: Store, entry: str, event: UUID, *, error: str | None) -> None:
    """A chunk whose people are not known yet waits without counting as failed. Where Redis does not hear of it, it is
    called again all the same, without having been counted."""
    try:
        await store.flights.back_off(entry, event, error=error)
    except Unavailable as away:
        say("routing", away)
