"""docs/cli.md names every command and every option."""

from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from tocsin.app import main

DOCUMENT = Path(__file__).parent.parent.joinpath("docs", "cli.md").read_text(encoding="utf-8")


def found_in(group: click.Group, prefix: str = "") -> Iterator[tuple[str, click.Command]]:
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from found_in(command, f"{prefix}{name} ")
        else:
            yield f"{prefix}{name}", command


COMMANDS = list(found_in(main))
every_command = pytest.mark.parametrize(("name", "command"), COMMANDS, ids=[name for name, _ in COMMANDS])


@every_command
def test_a_command_and_its_options_are_documented(name: str, command: click.Command) -> None:
    assert f"tocsin {name}" in DOCUMENT or f"`{name}`" in DOCUMENT
    options = [
        option for parameter in command.params if isinstance(parameter, click.Option) for option in parameter.opts
    ]
    missing = [option for option in options if f"`{option}`" not in DOCUMENT and f"{option} " not in DOCUMENT]
    assert missing == []


@every_command
def test_a_command_says_what_it_does(name: str, command: click.Command) -> None:
    assert command.help, name
