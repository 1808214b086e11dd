"""Deliveries, found by person, reference, channel, status and time."""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import Field, StringConstraints

from tocsin.domain.delivery import Channel, Status
from tocsin.domain.errors import NotFound
from tocsin.http.caller import VIEWERS
from tocsin.http.cursors import id_of, page_of
from tocsin.http.delivery_shapes import Deliveries, Delivery, delivery_of
from tocsin.http.endpoint import Call, Endpoint
from tocsin.http.problems import BAD_CURSOR, BAD_USER_ID, UNKNOWN_CHANNEL
from tocsin.http.shapes import AskedMoment, NoQuery, Paging, UserId
from tocsin.storage import queries
from tocsin.storage.queries import DeliveryFilter


class DeliveriesQuery(Paging):
    """Which deliveries; all of what is given must hold."""

    user_id: UserId | None = None
    reference: Annotated[str, StringConstraints(min_length=1, max_length=100, pattern=r"^[!-~]+$")] | None = None
    """The id of an event, a notification or a delivery, or one that a provider gave."""
    status: Status | None = None
    channel: Channel | None = None
    from_: AskedMoment | None = Field(None, alias="from")
    to: AskedMoment | None = None


async def list_deliveries(call: Call[None, DeliveriesQuery]) -> Deliveries:
    """Those of the newest events first. `from` and `to` are times of the event. Without `userId` or `reference` they
    are those of the last seven days, or of the seven before `to`."""
    query = call.query
    wanted = DeliveryFilter(
        user=query.user_id,
        reference=query.reference,
        status=query.status,
        channel=query.channel,
        from_ms=query.from_,
        to_ms=query.to,
        before=id_of(query.cursor) if query.cursor else None,
    )
    found = await call.context.store.postgres.call(queries.deliveries, wanted, query.limit + 1)
    page, after = page_of(found, query.limit, lambda last: last.id)
    return Deliveries(data=tuple(map(delivery_of, page)), next_cursor=after)


async def get_delivery(call: Call[None, NoQuery]) -> Delivery:
    """One delivery as it stands."""
    delivery = call.id("delivery")
    await call.context.store.caught_up()
    found = await call.context.store.postgres.call(queries.delivery, delivery)
    if found is None:
        raise NotFound
    return delivery_of(found)


ENDPOINTS: Final = (
    Endpoint(
        method="GET",
        path="/api/deliveries",
        handler=list_deliveries,
        summary="Find deliveries",
        tag="deliveries",
        who=VIEWERS,
        query=DeliveriesQuery,
        answer=Deliveries,
        problems=(BAD_CURSOR, BAD_USER_ID, UNKNOWN_CHANNEL),
    ),
    Endpoint(
        method="GET",
        path="/api/deliveries/{delivery}",
        handler=get_delivery,
        summary="One delivery",
        tag="deliveries",
        who=VIEWERS,
        answer=Delivery,
    ),
)
