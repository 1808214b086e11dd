"""The beginning of several events' fan-out, together: whoever is named first is a chunk, and is routed at once.

Most events have nobody else. Alone each would cost a call, a question to Postgres and five trips to Redis.
"""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from uuid import UUID

from loguru import logger

from tocsin.actors.route import calls_after, named_among, planned, route
from tocsin.domain.errors import Unavailable
from tocsin.domain.event import Contact
from tocsin.storage.first_chunks import First
from tocsin.storage.flight_parts import Chunk
from tocsin.storage.memory import Work
from tocsin.storage.store import Store


async def begin(store: Store, events: Sequence[UUID]) -> list[UUID]:
    """Makes and routes the first chunk of each event, unless that was done; answers those whose fan-out goes on. Raises
    Unavailable."""
    await store.memory.check(Work.PLAN)
    begun = await store.first_chunks.make(events)
    await _route(store, begun)
    return [event for event in events if event not in begun or begun[event].page.state not in {"last", "gone"}]


async def _route(store: Store, begun: Mapping[UUID, First]) -> None:
    """Routes what was made. Whom Redis knows does not wait for what Postgres says of others."""
    known, others = list[Chunk](), list[Chunk]()
    for chunk in (first.chunk for first in begun.values() if first.chunk is not None):
        (known if _has_all_contacts(chunk) else others).append(chunk)
    unread = [(event, first.page.chunk) for event, first in begun.items() if first.chunk is None]
    await asyncio.gather(
        _route_some(store, known),
        _route_some(store, others),
        *(route(store, str(event), number) for event, number in unread if number is not None),
    )


def _has_all_contacts(chunk: Chunk) -> bool:
    return all(person.id in chunk.contacts for person in named_among(chunk.people))


async def _route_some(store: Store, chunks: Sequence[Chunk]) -> None:
    """Routes chunks together; those for which that fails one by one, so that none suffers for another."""
    done: set[UUID] = set()
    try:
        if chunks:
            done = await _route_together(store, chunks)
    except Unavailable:
        pass  # Alone some may do without what is away; those that wait for it say so.
    except Exception:
        logger.exception("{} events cannot be routed together; each is tried alone", len(chunks))
    alone = [str(chunk.event.id) for chunk in chunks if chunk.event.id not in done]
    await asyncio.gather(*(route(store, event, 0) for event in alone))


async def _route_together(store: Store, chunks: Sequence[Chunk]) -> set[UUID]:
    """The events whose chunk is routed."""
    contacts = await _stored_contacts(store, chunks)
    plans = [(chunk, planned(chunk.event, chunk.people, contacts)) for chunk in chunks]
    answers = await store.first_chunks.route(plans, [store.persister_call()])
    routed = [(chunk.event, answer) for chunk in chunks if (answer := answers.get(chunk.event.id))]
    # A call that fails now is made again by who looks at the time index.
    with suppress(Unavailable):
        await store.calls.put_all(list(calls_after(store, routed)))
    return set(answers)


async def _stored_contacts(store: Store, chunks: Sequence[Chunk]) -> dict[str, Contact]:
    known = {user: contact for chunk in chunks for user, contact in chunk.contacts.items()}
    named = {person.id for chunk in chunks for person in named_among(chunk.people)}
    return known | await store.people.stored(named - known.keys())
