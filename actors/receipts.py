"""How well receipts come, a row a day and provider (R8): stored, so that it stays when the deliveries are gone."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta

from loguru import logger

from tocsin.channels.contract import Askable, Sender
from tocsin.domain.delivery import Channel
from tocsin.domain.errors import ProviderAway
from tocsin.storage import receipts
from tocsin.storage.receipts import ReceiptDay
from tocsin.storage.store import Store

_EVERY_MS = 3_000_000
_DAY = timedelta(days=1)


async def count_receipts(store: Store, senders: Mapping[Channel, Sender]) -> None:
    """Stores the counts of today and yesterday, and what the provider itself counts; one process does it, about once an
    hour. Raises RedisAway and PostgresAway."""
    askable = {
        sender.provider: sender
        for sender in senders.values()
        if sender.configured and isinstance(sender, Askable) and sender.gives_receipts
    }
    if not askable or not await store.once("receipts_counted", _EVERY_MS):
        return
    today = datetime.now(UTC).date()
    never_after = store.settings.uncertain.receipt_after
    days = await store.postgres.call(receipts.counted, list(askable), today - _DAY, today, never_after)
    if days:
        told = [replace(day, provider_total=await _total(askable[day.provider], day)) for day in days]
        await store.postgres.call(receipts.keep, told)


async def _total(provider: Askable, day: ReceiptDay) -> int | None:
    try:
        return await provider.count(_start_ms(day.day), _start_ms(day.day + _DAY))
    except ProviderAway as error:
        logger.warning("{} did not tell how many messages it had: {}", day.provider, error)
        return None


def _start_ms(day: date) -> int:
    return int(datetime.combine(day, time(), UTC).timestamp() * 1000)
