"""An event that goes on with the people whose notifications were not made, without a loss of Redis as a whole.

Facts and flights are made in one step, so who has no stored notification, once Postgres has heard of everything, was
never routed; unless something that was told is gone, which the caller has to say.
"""

from uuid import UUID

from tocsin.domain.event import Recipient
from tocsin.storage import ledger
from tocsin.storage import rebuild_queries as rows
from tocsin.storage.flight_parts import Again
from tocsin.storage.recall import Entering
from tocsin.storage.scripts import MOST_ITEMS
from tocsin.storage.store import Store


async def reenter(store: Store, event: UUID, *, exact: bool, walk: bool = True) -> int:
    """Enters the event with whom it has still to reach; answers how many were named, or 1 where only its audience is
    left to be looked through. `exact` False: they may have been reached, so what would start at once counts as begun
    by nobody knows whom. Nobody where Postgres refused to store something of it, or where somebody entered it
    meanwhile. Of one that was withdrawn nothing starts; where its people may have been reached it is left as it is, for
    they would show as cancelled. With `walk` False the people of its audience are not looked for: who is in it may have
    joined since."""
    if await store.postgres.call(ledger.refused, [str(event)]):
        return 0
    found = await store.postgres.call(rows.stored_events, [event])
    if not found or (found[0].cancelled and not exact):
        return 0
    stored = found[0]
    unrouted = await store.postgres.call(rows.unrouted, stored)
    people = await _not_in_motion(store, dict(unrouted.people))
    following = stored.walk if walk else None
    if not people and not following:
        return 0
    refilling = store.refilling()
    await refilling.mark_cancelled([event] if stored.cancelled else [])
    users = {note: person.id for note, person in unrouted.people.items()}
    await refilling.mark_read({note: (users[note], at_ms) for note, at_ms in unrouted.read_ms.items()})
    await refilling.mark_known(stored.event, [(each.notification, each.step) for each in unrouted.known])
    if not await store.motion.make_room(str(event), ended=not exact):
        return 0
    again = Again(unrouted.routed, None if exact else 0, following)
    await refilling.enter([Entering(stored.event, people, again)])
    await refilling.keep_inline(stored.event, stored.recipients)
    return len(people) or 1


async def _not_in_motion(store: Store, people: dict[UUID, Recipient]) -> list[Recipient]:
    notes = [str(note) for note in people]
    moving: set[str] = set()
    for first in range(0, len(notes), MOST_ITEMS):
        moving |= set(await store.motion.flights(notes[first : first + MOST_ITEMS]))
    return [person for note, person in people.items() if str(note) not in moving]
