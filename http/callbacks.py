"""What providers tell afterwards: Twilio's status callbacks (T5).

A callback is one journal entry that holds the receipt and the raw callback: both are applied, or neither. It may come
late, twice and out of order; facts merge the same whatever their order. An attempt that was in doubt is settled by it
at once, and another that waits because of the doubt is not sent any more. A 503 makes Twilio try again, because the
sender asks it to in the callback's URL.
"""

from __future__ import annotations

import hashlib
import time
from typing import Any, Final
from urllib.parse import parse_qsl
from uuid import UUID

from starlette.datastructures import FormData
from starlette.responses import Response

from tocsin.channels import twilio
from tocsin.domain import ids
from tocsin.domain.delivery import Channel
from tocsin.http.caller import PUBLIC
from tocsin.http.endpoint import Call, Endpoint, read_body
from tocsin.http.problems import AWAY, BAD_REQUEST, BAD_SIGNATURE, BODY_TOO_LARGE, Problem
from tocsin.storage.settling import Telling

_MOST_BYTES: Final = 64 * 1024
_MOST_FIELDS: Final = 200
_MOST_STEPS: Final = 10_000


async def post_twilio(call: Call[None, Any]) -> Response:
    """A status callback that Twilio signed, with the delivery that it speaks of in its query."""
    raw = await read_body(call.request, _MOST_BYTES)
    form = _form_of(raw)
    _check_signature(call, form)
    at_ms = time.time_ns() // 1_000_000
    receipt, named = twilio.receipt(form), _attempt_of(call)
    kept = _callback_fact(receipt, form, raw, at_ms, call.cid)
    if named is not None:
        kept |= {"delivery": str(ids.delivery_id(named[0], named[1], Channel.SMS)), "attempt": named[2]}
    telling = _telling(call, receipt, named)
    await call.context.store.settle([telling] if telling else [], [kept])
    return Response(status_code=204)


def _form_of(raw: bytes) -> FormData:
    # FormData keeps repeated and blank fields, both of which are signed.
    try:
        fields = parse_qsl(raw.decode("latin-1"), keep_blank_values=True, max_num_fields=_MOST_FIELDS)
    except ValueError as error:
        raise Problem(BAD_REQUEST, "The form has too many fields.") from error
    return FormData(list(fields))


def _check_signature(call: Call[None, Any], form: FormData) -> None:
    token = call.context.twilio_auth_token
    signature = call.request.headers.get("x-twilio-signature", "")
    if not token or not signature or not twilio.validate(token, _signed_url(call), form, signature):
        raise Problem(BAD_SIGNATURE)


def _signed_url(call: Call[None, Any]) -> str:
    """The URL as Twilio knows it: a proxy may have changed the host and the scheme that arrive here."""
    request = call.request
    base = call.context.settings.http.public_url or str(request.base_url).rstrip("/")
    query = request.scope["query_string"].decode("latin-1")
    return f"{base}{request.url.path}?{query}" if query else f"{base}{request.url.path}"


def _telling(call: Call[None, Any], receipt: twilio.Receipt, named: tuple[UUID, int, int] | None) -> Telling | None:
    """What the receipt changes; None where it names no attempt of ours, or says a word that is not known."""
    if named is None or receipt.status is None:
        return None
    told = {
        "reason": receipt.reason,
        "provider": call.context.provider_of(Channel.SMS),
        "provider_id": receipt.provider_id or None,
        "code": receipt.code,
        "message": receipt.message,
        "segments": receipt.segments,
        "price": receipt.price,
        "cid": call.cid,
    }
    detail = {name: value for name, value in told.items() if value is not None}
    notification, step, attempt = named
    return Telling(notification, step, Channel.SMS, attempt, receipt.status, detail, receipt.word)


def _attempt_of(call: Call[None, Any]) -> tuple[UUID, int, int] | None:
    """The notification, step and attempt that the callback's own query names."""
    query = call.request.query_params
    try:
        notification = UUID(query["notification"])
        step, attempt = int(query["step"]), int(query["attempt"])
        exact = ids.delivery_id(notification, step, Channel.SMS) == UUID(query["delivery"])
    except (KeyError, ValueError):
        return None
    fitting = exact and 0 < step < _MOST_STEPS and 0 < attempt < _MOST_STEPS
    return (notification, step, attempt) if fitting else None


def _callback_fact(receipt: twilio.Receipt, form: FormData, raw: bytes, at_ms: int, cid: str) -> dict[str, Any]:
    """The callback as it came. The same one told twice has the same id."""
    known = f"{receipt.provider_id}:{receipt.word}" if receipt.provider_id and receipt.word else None
    identifier = known or hashlib.sha256(raw).hexdigest()
    fields: dict[str, Any] = {}
    for name, value in form.multi_items():
        fields.setdefault(name.replace("\0", ""), []).append(str(value).replace("\0", ""))
    told = {name: values[0] if len(values) == 1 else values for name, values in fields.items()}
    named = {"provider_id": receipt.provider_id or None, "word": receipt.word or None}
    return {"f": "callback", "provider": "twilio", "at": at_ms, "id": identifier, "raw": told, "cid": cid, **named}


ENDPOINTS: Final = (
    Endpoint(
        method="POST",
        path=twilio.CALLBACK_PATH,
        handler=post_twilio,
        summary="Twilio tells what became of an SMS",
        tag="callbacks",
        who=PUBLIC,
        query=None,
        status=204,
        problems=(BAD_REQUEST, BAD_SIGNATURE, BODY_TOO_LARGE, *AWAY),
    ),
)
