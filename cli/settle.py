"""`tocsin settle`: a person says what became of a delivery whose outcome nobody knows."""

from __future__ import annotations

import click
from rich.text import Text

from tocsin.cli.options import with_server
from tocsin.cli.screen import Screen, plain, status_text
from tocsin.cli.server import Server, segment
from tocsin.domain.settlement import ANSWERS


@click.command(short_help="Say what became of a delivery that is UNCERTAIN.")
@click.argument("delivery")
@click.argument("outcome", type=click.Choice(list(ANSWERS), case_sensitive=False))
@click.option("--note", help="How you know; kept in the journey.")
@click.option("--provider-id", help="The provider's own id of the message.")
@with_server
async def settle(
    server: Server, screen: Screen, delivery: str, outcome: str, note: str | None, provider_id: str | None
) -> None:
    """Say what became of a delivery that is UNCERTAIN, or SENT and not confirmed.

    OUTCOME is SENT (the provider has it), DELIVERED (it arrived) or FAILED (it did not go out, or did not arrive). Once
    it is known that a message went out, no further attempt at it is made. What FAILED can be sent again as a dead
    letter.
    """
    said = {"outcome": outcome, "note": note, "providerId": provider_id}
    answered = await server.post(
        f"/api/deliveries/{segment(delivery)}/settle", {name: value for name, value in said.items() if value}
    )
    screen.answer(answered)
    screen.tell(Text.assemble(f"Delivery {plain(answered['id'])} is now ", status_text(answered["status"])))
