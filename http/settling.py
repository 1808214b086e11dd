"""A person says what became of a delivery whose outcome nobody knows (design §6)."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Final

from pydantic import StringConstraints

from tocsin.domain.correlation import Confidence, Method
from tocsin.domain.delivery import Channel, Fact, Reason, Status
from tocsin.domain.errors import NotFound
from tocsin.domain.settlement import settlement
from tocsin.http.caller import SENDERS
from tocsin.http.delivery_shapes import Delivery, delivery_of
from tocsin.http.endpoint import Call, Endpoint
from tocsin.http.problems import CONFLICT
from tocsin.http.shapes import Asked, NoQuery, Text
from tocsin.storage import queries
from tocsin.storage.audit import audit
from tocsin.storage.queries import DeliveryRow
from tocsin.storage.settling import Telling


class SettledOutcome(StrEnum):
    """What a person can know."""

    SENT = Status.SENT
    DELIVERED = Status.DELIVERED
    FAILED = Status.FAILED


class PostSettlement(Asked):
    """What a person found out, such as in the provider's own log."""

    outcome: SettledOutcome
    note: Annotated[Text, StringConstraints(max_length=500)] | None = None
    provider_id: Annotated[str, StringConstraints(pattern=r"^[!-~]{1,64}$")] | None = None


async def settle_delivery(call: Call[PostSettlement, NoQuery]) -> Delivery:
    """Settles a delivery that is UNCERTAIN, or SENT and not confirmed. Whatever waits because of the doubt is not sent
    any more once it is known that the message went out. Saying the same again changes nothing."""
    store, identifier = call.context.store, call.id("delivery")
    await store.caught_up()
    row = await store.postgres.call(queries.delivery, identifier)
    history = await store.postgres.call(queries.history_of, identifier)
    if row is None or history is None:
        raise NotFound
    if told := settlement(history, Status(call.body.outcome)):
        done = {"delivery": str(identifier), "outcome": call.body.outcome, "attempts": [attempt for attempt, _ in told]}
        await store.postgres.call(audit, "delivery.settled", call.caller.name, call.cid, done)
        await store.settle([_telling(call, row, attempt, status) for attempt, status in told])
        await store.caught_up()
    stands = await store.postgres.call(queries.delivery, identifier)
    return delivery_of(stands or row)


def _telling(call: Call[PostSettlement, NoQuery], row: DeliveryRow, attempt: int, status: Status) -> Telling:
    detail: Fact = {
        "reason": Reason.SETTLED,
        "by": call.caller.name,
        "method": Method.PERSON,
        "confidence": Confidence.HIGH,
        "cid": call.cid,
    }
    if call.body.note is not None:
        detail["note"] = call.body.note
    if call.body.provider_id is not None:
        detail["provider_id"] = call.body.provider_id
    return Telling(row.notification_id, row.step, Channel(row.channel), attempt, status, detail)


ENDPOINTS: Final = (
    Endpoint(
        method="POST",
        path="/api/deliveries/{delivery}/settle",
        handler=settle_delivery,
        summary="Say what became of a delivery",
        tag="deliveries",
        who=SENDERS,
        body=PostSettlement,
        answer=Delivery,
        problems=(CONFLICT,),
    ),
)
