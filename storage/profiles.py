"""Who people are, as Redis knows them: contacts while they are needed, and everything that anybody switched off.

The opt-outs are mirrored whole and kept up to date (few people have any), so that a person known only inline can be
judged while Postgres is away, and so that a claim looks at them at the last moment.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Final
from uuid import UUID

from tocsin.domain.event import Contact, Recipient
from tocsin.storage.keys import Keys
from tocsin.storage.redis import told
from tocsin.storage.scripts import MOST_ITEMS, Scripts

INLINE_LONGER_MS: Final = 3_600_000
"""For how long what was given inline is remembered after the event is forgotten: before that it would mean that nothing
was given."""


class Profiles:
    """Contacts by user, and what a caller gave inline for one event."""

    def __init__(self, client: Any, scripts: Scripts, keys: Keys, ttl_ms: int) -> None:
        self._client = client
        self._scripts = scripts
        self._keys = keys
        self._ttl_ms = ttl_ms

    async def keep(self, contacts: Sequence[Contact]) -> None:
        """Keeps contacts read from Postgres or just changed; an older version never replaces a newer one."""
        await self._keep(contacts, only_there=False)

    async def renew(self, contacts: Sequence[Contact]) -> None:
        """Keeps those that are kept already, and what people switched off: who was not asked for yet is asked of
        Postgres, so that many who are imported fill nothing."""
        await self._keep(contacts, only_there=True)

    async def there(self, users: Sequence[str]) -> list[str]:
        """Those of `users` whose contacts are kept."""
        with told():
            async with self._client.pipeline(transaction=False) as pipeline:
                for user in users:
                    pipeline.exists(self._keys.profile(user))
                found = await pipeline.execute()
        return [user for user, exists in zip(users, found, strict=True) if exists]

    async def _keep(self, contacts: Sequence[Contact], *, only_there: bool) -> None:
        for first in range(0, len(contacts), MOST_ITEMS):
            arguments: list[object] = ["1" if only_there else "0"]
            for contact in contacts[first : first + MOST_ITEMS]:
                off = f",{','.join(contact.opt_outs)}," if contact.opt_outs else ""
                arguments += [contact.id, contact.version, contact.model_dump_json(), self._ttl_ms, off]
            await self._scripts.run("profile", *arguments)

    async def forget(self, user: str) -> None:
        """Removes a person who was deleted."""
        with told():
            async with self._client.pipeline(transaction=True) as pipeline:
                pipeline.delete(self._keys.profile(user))
                pipeline.hdel(self._keys.opt_outs, user)
                await pipeline.execute()

    async def opt_outs(self, users: Sequence[str]) -> dict[str, tuple[str, ...]] | None:
        """What each of `users` switched off; None while the mirror is not complete."""
        with told():
            complete = await self._client.exists(self._keys.people_mirrored)
            off = await self._client.hmget(self._keys.opt_outs, list(users)) if complete and users else []
        if not complete:
            return None
        return {user: tuple(text.strip(",").split(",")) if text else () for user, text in zip(users, off, strict=True)}

    async def mirrored_ms(self) -> int | None:
        """Up to which moment of Postgres's clock every change of people is known here; None when never."""
        with told():
            text = await self._client.get(self._keys.people_mirrored)
        return int(text) if text else None

    async def mirrored_up_to(self, moment_ms: int) -> None:
        """Says so, after every change up to `moment_ms` was kept."""
        with told():
            await self._client.set(self._keys.people_mirrored, str(moment_ms))

    async def keep_inline(self, event: UUID, people: Iterable[Recipient], ttl_ms: int) -> None:
        """Keeps what a caller gave inline, for this event's sends."""
        details = {person.id: person.model_dump_json(exclude_none=True) for person in people if person.inline}
        if not details:
            return
        with told():
            async with self._client.pipeline(transaction=True) as pipeline:
                pipeline.hset(self._keys.contacts(event), mapping=details)
                pipeline.pexpire(self._keys.contacts(event), ttl_ms + INLINE_LONGER_MS)
                await pipeline.execute()

    async def reached(
        self, wanted: Sequence[tuple[UUID, str]]
    ) -> tuple[dict[tuple[UUID, str], Recipient | None], dict[str, Contact]]:
        """What was given inline, by event and user, None for nothing, without those that Redis has forgotten; and the
        contacts that it has, by user."""
        given: dict[tuple[UUID, str], Recipient | None] = {}
        contacts: dict[str, Contact] = {}
        for first in range(0, len(wanted), MOST_ITEMS):
            places = wanted[first : first + MOST_ITEMS]
            answer = await self._scripts.run("reach", *(part for place in places for part in place))
            for place, whole, inline, contact in zip(places, answer[::3], answer[1::3], answer[2::3], strict=True):
                if inline or whole == "1":
                    given[place] = Recipient.model_validate_json(inline) if inline else None
                if contact:
                    contacts[place[1]] = Contact.model_validate_json(contact)
        return given, contacts
