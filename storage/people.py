"""Who a chunk or a claim is about: from Redis where known, else from Postgres, else by what can be said without."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from uuid import UUID

from tocsin.domain.errors import PostgresAway
from tocsin.domain.event import Contact, Event, Recipient
from tocsin.storage import queries, users
from tocsin.storage.flights import Flights
from tocsin.storage.postgres import Postgres
from tocsin.storage.profiles import Profiles


class People:
    """Reads through Redis to Postgres."""

    def __init__(self, flights: Flights, profiles: Profiles, postgres: Postgres) -> None:
        self._flights = flights
        self._profiles = profiles
        self._postgres = postgres

    async def contacts_of(self, people: Sequence[Recipient], known: Mapping[str, Contact]) -> dict[str, Contact]:
        """The stored contact of each person, of some of whom it is `known`; who is not stored is left out. While
        Postgres is away whoever was given inline has one of nothing but opt-outs. Raises PostgresAway when somebody
        cannot be judged without it."""
        return await self._contacts_of(people, dict(known), {person.id for person in people})

    async def _contacts_of(
        self, people: Sequence[Recipient], known: dict[str, Contact], kept: Collection[str]
    ) -> dict[str, Contact]:
        missing = [person for person in people if person.id not in known]
        if not missing:
            return known
        try:
            return known | await self._stored([person.id for person in missing], kept)
        except PostgresAway:
            return known | await self._judged_without_postgres(missing)

    async def stored(self, wanted: Collection[str]) -> dict[str, Contact]:
        """The contacts of those of `wanted` who are stored, which Redis keeps. Raises PostgresAway."""
        return await self._stored(list(wanted), wanted) if wanted else {}

    async def reached(
        self, wanted: Sequence[tuple[UUID, str]], passing: Collection[UUID] = ()
    ) -> dict[tuple[UUID, str], Contact]:
        """Where each (event, user) can be reached now; who cannot be known now is left out. Of who is reached by the
        events of `passing` alone nothing is kept."""
        kept = {user for event, user in wanted if event not in passing}
        given, known = await self._profiles.reached(wanted)
        given |= await self._given_before([place for place in wanted if place not in given])
        strangers = {user: person or Recipient(id=user) for (_, user), person in given.items() if user not in known}
        try:
            found = await self._contacts_of(list(strangers.values()), {}, kept)
            unstored = {user: Contact(id=user) for user, person in strangers.items() if person.inline}
            contacts = known | unstored | found
        except PostgresAway:
            contacts = known
        return {
            (event, user): contacts[user].overlaid(person) if person else contacts[user]
            for (event, user), person in given.items()
            if user in contacts
        }

    async def _given_before(self, forgotten: Sequence[tuple[UUID, str]]) -> dict[tuple[UUID, str], Recipient | None]:
        """What was given inline, None for nothing. Redis forgets it some time after the last step; a delivery that is
        replayed later finds it in Postgres. Without either it cannot be known, and is left out."""
        if not forgotten:
            return {}
        try:
            found: dict[tuple[UUID, str], Recipient | None] = await self._postgres.call(queries.given_inline, forgotten)
        except PostgresAway:
            return {}
        return found

    async def events(self, wanted: Iterable[UUID]) -> dict[UUID, Event]:
        """The events by id; those that cannot be known now are left out."""
        wanted = list(wanted)
        found = await self._flights.events(wanted) if wanted else {}
        missing = [event for event in wanted if event not in found]
        if missing:
            try:
                found |= await self._postgres.call(queries.contents, missing)
            except PostgresAway:
                return found
        return found

    async def _stored(self, wanted: Sequence[str], kept: Collection[str]) -> dict[str, Contact]:
        contacts: list[Contact] = await self._postgres.call(users.contacts, wanted)
        await self._profiles.keep([contact for contact in contacts if contact.id in kept])
        await self._profiles.renew([contact for contact in contacts if contact.id not in kept])
        return {contact.id: contact for contact in contacts}

    async def _judged_without_postgres(self, people: Sequence[Recipient]) -> dict[str, Contact]:
        off = await self._profiles.opt_outs([person.id for person in people])
        if off is None or not all(person.inline for person in people):
            raise PostgresAway("who some recipients are is only in Postgres")
        return {person.id: Contact(id=person.id, opt_outs=off[person.id]) for person in people}
