"""From claims to messages: the event's content and where the person can be reached now."""

from collections.abc import Sequence
from uuid import UUID

from tocsin.channels.contract import Message
from tocsin.domain import ids
from tocsin.domain.delivery import Channel
from tocsin.domain.event import Contact, Event
from tocsin.storage.flight_parts import Claim
from tocsin.storage.store import Store

_MOST_KNOWN = 100
"""Events that are remembered; what one says never changes."""


async def messages_for(
    store: Store, claims: Sequence[Claim], known: dict[UUID, Event] | None = None
) -> dict[Claim, Message | None]:
    """What each claim has to say; None for one that has no address any more. A claim whose event or person cannot be
    known now, because Postgres is away, is left out. `known` remembers events from one call to the next."""
    known = {} if known is None else known
    wanted = {claim.event for claim in claims}
    # A copy: others of this lane forget events meanwhile.
    events = {event: known[event] for event in wanted & known.keys()}
    events |= await store.events(wanted - events.keys())
    known |= events
    for oldest in list(known)[:-_MOST_KNOWN]:
        del known[oldest]
    # An audience may be everybody there is: of each person that would be kept in Redis for a step or two.
    passing = [identifier for identifier, event in events.items() if event.audience]
    people = await store.people.reached([(claim.event, claim.user) for claim in claims], passing)
    return {
        claim: _message(claim, events[claim.event], people[claim.event, claim.user])
        for claim in claims
        if claim.event in events and (claim.event, claim.user) in people
    }


def _message(claim: Claim, event: Event, person: Contact) -> Message | None:
    address = _address(claim.channel, person)
    if address is None:
        return None
    return Message(
        delivery=ids.delivery_id(claim.notification, claim.step, claim.channel),
        notification=claim.notification,
        event=claim.event,
        step=claim.step,
        attempt=claim.attempt,
        channel=claim.channel,
        user=claim.user,
        cid=event.cid,
        address=address,
        tokens=person.tokens if claim.channel is Channel.PUSH else (),
        title=event.title,
        text=event.message,
        priority=event.priority,
        event_type=event.type,
        name=person.name,
        locale=person.locale,
        metadata=event.metadata,
    )


def _address(channel: Channel, person: Contact) -> str | None:
    if channel is Channel.PUSH:
        return person.tokens[0] if person.tokens else None
    return person.addresses().get(channel)
