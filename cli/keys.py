"""`tocsin keys`: API keys for servers, and tokens for end users."""

from __future__ import annotations

import click
from rich.text import Text

from tocsin.cli.journey import Document, clock
from tocsin.cli.options import with_server
from tocsin.cli.screen import Screen
from tocsin.cli.server import Server, segment
from tocsin.http.keys import KeyRole


@click.group()
def keys() -> None:
    """API keys, and tokens for end users."""


@keys.command()
@click.argument("name")
@click.option(
    "--role", type=click.Choice(list(KeyRole), case_sensitive=False), default=KeyRole.SENDER, show_default=True
)
@with_server
async def create(server: Server, screen: Screen, name: str, role: str) -> None:
    """Make a key called NAME. Its secret is shown this once."""
    _tell_new(screen, await server.post("/api/keys", {"name": name, "role": role}))


@keys.command(short_help="Replace a key by a new one, and revoke it.")
@click.argument("key_id")
@with_server
async def rotate(server: Server, screen: Screen, key_id: str) -> None:
    """Replace a key by a new one of the same name and role, and revoke it. The new secret is shown this once."""
    _tell_new(screen, await server.post(f"/api/keys/{segment(key_id)}/rotate"))


def _tell_new(screen: Screen, made: Document) -> None:
    screen.tell(Text.assemble("Key ", (made["name"], "bold"), f" ({made['role']}), id {made['id']}"))
    screen.tell(Text(made["secret"], style="bold green"))
    screen.tell("Keep it now: only its hash is stored, and it is never shown again.", style="dim")
    screen.answer(made)


@keys.command("list")
@with_server
async def list_keys(server: Server, screen: Screen) -> None:
    """List the keys by name, those that were revoked among them. No secret is shown."""
    found = [key async for key in server.pages("/api/keys", most=1000)]
    rows = [
        (
            key["id"],
            key["name"],
            key["role"].lower(),
            clock(key["createdAt"]),
            key["createdBy"],
            clock(key["revokedAt"]),
        )
        for key in found
    ]
    screen.table(["id", "name", "role", "created (UTC)", "by", "revoked (UTC)"], rows)
    screen.answer({"data": found})


@keys.command(short_help="Revoke a key.")
@click.argument("key_id")
@with_server
async def revoke(server: Server, screen: Screen, key_id: str) -> None:
    """Revoke a key by its id; within half a minute no process takes it any more."""
    answered = await server.delete(f"/api/keys/{segment(key_id)}")
    screen.tell(f"Key {key_id} is revoked.")
    screen.answer(answered or {"id": key_id, "revoked": True})


@keys.command()
@click.argument("user")
@with_server
async def token(server: Server, screen: Screen, user: str) -> None:
    """Make a token with which USER reads their own notifications."""
    made = await server.post(f"/api/users/{segment(user)}/token")
    screen.tell(made["token"])
    screen.tell(f"It is good until {made['expiresAt']}.", style="dim")
    screen.answer(made)
