"""The doctor looks at the channels: it logs in to each provider without sending anything."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from tocsin.channels.contract import Sender
from tocsin.channels.registry import build_senders, context_of
from tocsin.cli.findings import Finding, fail, ok, warn
from tocsin.cli.options import own_address
from tocsin.cli.server import NoAnswer, Refused, Server
from tocsin.domain.delivery import Channel
from tocsin.domain.errors import SettingError
from tocsin.domain.settings import Settings

_NEEDED = {
    Channel.EMAIL: "Set SMTP_HOST and SENDER_EMAIL.",
    Channel.SMS: "Set TWILIO_ACCOUNT_SID, TWILIO_AUTH_TOKEN and TWILIO_PHONE_NUMBER.",
    Channel.PUSH: "Set FIREBASE_PROJECT_ID, FIREBASE_PRIVATE_KEY and FIREBASE_CLIENT_EMAIL.",
}
_MENDS = {
    Channel.EMAIL: "Check SMTP_HOST, SMTP_PORT, SMTP_USER, SMTP_PASS, email.smtp.security and the way to it.",
    Channel.SMS: "Check TWILIO_ACCOUNT_SID, TWILIO_AUTH_TOKEN and the way to Twilio.",
    Channel.PUSH: "Check FIREBASE_PROJECT_ID, FIREBASE_PRIVATE_KEY, FIREBASE_CLIENT_EMAIL and the way to Google.",
}
_SPARE_S = 5.0
"""How much longer than one send a login may take: it may need an access token first."""


async def check_channels(settings: Settings) -> AsyncIterator[Finding]:
    """A finding for every channel that has a provider."""
    try:
        senders = build_senders(settings, context_of(settings, sandbox=False))
    except SettingError as error:
        yield fail("channels", str(error), "Mend the setting that is named.")
        return
    in_sandbox = await _in_sandbox(settings)
    for channel, sender in sorted(senders.items()):
        try:
            if channel in in_sandbox and not sender.configured:
                yield ok(channel.lower(), "carried by the sandbox of the server that runs here")
            else:
                yield await check_sender(channel, sender)
        finally:
            await sender.close()
    twilio = senders.get(Channel.SMS)
    if twilio and twilio.configured and settings.http.public_url is None:
        yield warn(
            "sms",
            "receipts cannot arrive: nobody outside knows where this server is",
            "Set http.public_url (TOCSIN_HTTP__PUBLIC_URL) to the address that the provider can reach.",
        )


async def _in_sandbox(settings: Settings) -> set[Channel]:
    """The channels that a server which runs here sends to servers of its own (`tocsin serve --sandbox`)."""
    try:
        async with Server(own_address(settings), None, limit_s=_SPARE_S) as server:
            told = (await server.get("/ready"))["channels"]
            return {channel for channel in Channel if told.get(channel, {}).get("provider") == "sandbox"}
    except (NoAnswer, Refused, KeyError, TypeError, AttributeError):
        # Nobody is there, or somebody else.
        return set()


async def check_sender(channel: Channel, sender: Sender) -> Finding:
    """Whether a provider lets us in."""
    subject = channel.lower()
    if not sender.configured:
        return warn(subject, "not configured: its deliveries fail with not_configured", _NEEDED.get(channel, ""))
    try:
        async with asyncio.timeout(sender.timeout_s + _SPARE_S):
            await sender.check()
    except SettingError as error:
        return fail(subject, str(error), _MENDS.get(channel, ""))
    except TimeoutError:
        return fail(subject, f"{sender.provider} did not answer in time", _MENDS.get(channel, ""))
    return ok(subject, f"{sender.provider} lets us in")
