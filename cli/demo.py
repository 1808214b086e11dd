"""`tocsin demo`: plays the main job on a sandbox server over HTTP alone, and tells it as journey and outbox have it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import click

from tocsin.cli.demo_checks import Told, judge
from tocsin.cli.demo_scenes import PEOPLE, SCENES, Scene
from tocsin.cli.demo_telling import Teller
from tocsin.cli.journey import Document, if_known, is_final, milliseconds
from tocsin.cli.options import FAILED, with_server
from tocsin.cli.screen import Screen
from tocsin.cli.server import Refused, Server
from tocsin.domain.delivery import Channel, Status

_LOOK_AGAIN_S: Final = 0.1
_LIMIT_S: Final = 60.0
_RECEIPT_S: Final = 2.0
"""How long a receipt is waited for; a sandbox whose callbacks cannot arrive gives none."""
_AFTER_LAST_STEP_MS: Final = 1_500
"""How long after the last step's time it is looked whether something went out that should not have."""


@dataclass(slots=True)
class Playing:
    """A scene while it is played."""

    scene: Scene
    event: str
    notification: str
    journey: Document | None = None
    outbox: list[Document] = field(default_factory=list)
    has_been_read: bool = False
    has_been_withdrawn: bool = False
    final_since_s: float | None = None


@click.command(short_help="Play the main job on a sandbox, and check it.")
@with_server
async def demo(server: Server, screen: Screen) -> int | None:
    """Play the main job against `tocsin serve --sandbox` and tell it line by line.

    Every line is read back from journeys and from the sandbox's outbox. A mismatch ends it with 1.
    """
    await _require_sandbox(server)
    teller = Teller(screen, server.url)
    await _meet_people(server)
    teller.begin()
    playing = [await _post(server, scene) for scene in SCENES]
    await _play(server, teller, playing)
    told = await asyncio.gather(*(_read_back(server, each) for each in playing))
    checks = [check for each in told for check in judge(each)]
    teller.end(told, checks)
    return None if all(check.holds for check in checks) else FAILED


async def _require_sandbox(server: Server) -> None:
    """Raises ClickException where messages would leave the machine."""
    try:
        await server.get("/api/sandbox/outbox", limit=1)
    except Refused as refused:
        if refused.status != 404:
            raise
        raise click.ClickException(
            "This server has no sandbox: the demo's messages would go out. Start one with `tocsin serve --sandbox`."
        ) from refused


async def _meet_people(server: Server) -> None:
    for person in PEOPLE:
        details = {"name": person.name, "email": person.email, "phone": person.phone}
        await server.put(f"/api/users/{person.id}", details)
        await server.put(f"/api/users/{person.id}/devices", {"token": person.device})
        await server.put(f"/api/users/{person.id}/preferences", {})


async def _post(server: Server, scene: Scene) -> Playing:
    posted = await server.post("/api/notifications", scene.posting())
    return Playing(scene, posted["id"], posted["notifications"][0]["id"])


async def _play(server: Server, teller: Teller, playing: Sequence[Playing]) -> None:
    """Looks, tells what is new, and acts for the people, until every scene is over."""
    deadline = time.monotonic() + _LIMIT_S
    while time.monotonic() < deadline:
        await asyncio.gather(*(_look(server, each) for each in playing))
        teller.tell({each.scene.letter: (each.journey, each.outbox) for each in playing})
        for each in playing:
            await _act(server, each)
        if all(map(_is_over, playing)):
            return
        await asyncio.sleep(_LOOK_AGAIN_S)


async def _look(server: Server, playing: Playing) -> None:
    playing.outbox = await _messages(server, playing)
    playing.journey = await if_known(server.get(f"/api/notifications/{playing.notification}/journey"))


async def _messages(server: Server, playing: Playing) -> list[Document]:
    return [entry async for entry in server.pages("/api/sandbox/outbox", 1000, notification=playing.notification)]


async def _act(server: Server, playing: Playing) -> None:
    """What the person, or the sender, does once the in-app step is there and push is out."""
    scene = playing.scene
    if playing.journey is None or not _has_gone_out_at_once(playing.journey):
        return
    if scene.is_read and not playing.has_been_read:
        minted = await server.post(f"/api/users/{scene.person.id}/token")
        async with server.as_other(minted["token"]) as own:
            await own.post(f"/api/notifications/{playing.notification}/read")
        playing.has_been_read = True
    if scene.is_planned_only and not playing.has_been_withdrawn:
        await server.post(f"/api/events/{playing.event}/cancel", {"reason": "the demo has seen its plan"})
        playing.has_been_withdrawn = True


def _has_gone_out_at_once(journey: Document) -> bool:
    found = {each["channel"]: Status(each["status"]) for each in journey["deliveries"]}
    return found.get(Channel.IN_APP) is Status.DELIVERED and found.get(Channel.PUSH) is Status.SENT


def _is_over(playing: Playing) -> bool:
    """Whether nothing more is to come, nor could come against the plan."""
    journey = playing.journey
    if journey is None or not is_final(journey["deliveries"]):
        playing.final_since_s = None
        return False
    playing.final_since_s = playing.final_since_s or time.monotonic()
    waits_for_receipt = any(
        (each["channel"], each["status"]) == (Channel.SMS, Status.SENT) for each in journey["deliveries"]
    )
    if waits_for_receipt and time.monotonic() - playing.final_since_s < _RECEIPT_S:
        return False
    if not playing.scene.is_read:
        return True
    last_ms = max(milliseconds(each["scheduledFor"]) for each in journey["deliveries"])
    return time.time_ns() // 1_000_000 > last_ms + _AFTER_LAST_STEP_MS


async def _read_back(server: Server, playing: Playing) -> Told:
    """The scene as it is stored. Raises Refused where the server does not know what it accepted."""
    event: dict[str, Any] = await server.get(f"/api/events/{playing.event}")
    journey = await server.get(f"/api/notifications/{playing.notification}/journey")
    return Told(playing.scene, event, journey, await _messages(server, playing))
