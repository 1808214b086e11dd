"""`tocsin demo`: the story against a real sandbox server, and that no deviation from it passes unnoticed."""

import copy
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from tests.program import Program, environment, running
from tocsin.app import main
from tocsin.cli.demo_checks import Told, judge
from tocsin.cli.demo_scenes import SCENES

pytestmark = [pytest.mark.servers, pytest.mark.processes]

Story = dict[str, Any]


@pytest.fixture(scope="module")
def story(sandbox_server: Program) -> Story:
    """What the demo answers programs, told once for this module."""
    result = CliRunner().invoke(main, ["demo", "--json"], env=sandbox_server.environ)
    assert result.exit_code == 0, result.output
    told: Story = json.loads(result.stdout)
    return told


def test_every_claim_of_the_story_holds(story: Story) -> None:
    assert story["ok"]
    assert len(story["checks"]) >= 25
    assert {check["scene"] for check in story["checks"]} == {scene.letter for scene in SCENES}


def test_it_is_told_line_by_line_from_journey_and_outbox(sandbox_server: Program) -> None:
    result = CliRunner().invoke(main, ["demo"], env=sandbox_server.environ)
    assert result.exit_code == 0, result.output
    lines = [" ".join(line.split()) for line in result.stdout.splitlines()]
    wanted = [
        "A Asha push sent",
        "A Asha SMS delivered",
        "A Asha email arrived “Your event on Saturday has been approved.",
        "B Bina SMS arrived “The community hall is closed on Friday.”",
        "C Chitra read by Chitra",
        "C Chitra SMS cancelled read",
        "D Asha SMS arrived “Somebody signed in",
        "E Bina SMS scheduled for +10 min after its start",
        "E Bina email scheduled for +40 min after its start",
    ]
    for line in wanted:
        assert any(line in told for told in lines), f"{line}\n{result.stdout}"
    assert not any("C Chitra SMS arrived" in told or "C Chitra email arrived" in told for told in lines)
    assert "MISMATCH" not in result.stdout


Spoil = Callable[[Story], None]


def second_message(scene: Story) -> None:
    scene["outbox"].append(copy.deepcopy(scene["outbox"][0]))


def lost_message(scene: Story) -> None:
    del scene["outbox"][0]


def somebody_elses_message(scene: Story) -> None:
    scene["outbox"][0]["deliveryId"] = None


def sms_after_the_read(scene: Story) -> None:
    sms = delivery(scene, "SMS")
    scene["outbox"].append(scene["outbox"][0] | {"channel": "SMS", "deliveryId": sms["id"]})


def forgotten_read(scene: Story) -> None:
    scene["journey"]["notification"]["read"] = False


def cancelled_for_another_reason(scene: Story) -> None:
    delivery(scene, "EMAIL")["reason"] = "cancelled"


def early_sms(scene: Story) -> None:
    sms = next(entry for entry in scene["outbox"] if entry["channel"] == "SMS")
    sms["receivedAt"] = scene["journey"]["notification"]["createdAt"]


def failed_push(scene: Story) -> None:
    delivery(scene, "PUSH")["status"] = "FAILED"


def other_strategy(scene: Story) -> None:
    followed = scene["event"]["deliveryStrategy"]
    scene["event"]["deliveryStrategy"] = "BROADCAST" if followed == "ESCALATION" else "ESCALATION"


def eleven_minutes(scene: Story) -> None:
    sms = delivery(scene, "SMS")
    sms["scheduledFor"] = sms["scheduledFor"].replace(":", ":0", 0)[:14] + "59:59.999Z"


def delivery(scene: Story, channel: str) -> Story:
    found: Story = next(each for each in scene["journey"]["deliveries"] if each["channel"] == channel)
    return found


@pytest.mark.parametrize(
    ("letter", "spoil"),
    [
        *((letter, spoil) for letter in "ABD" for spoil in (second_message, lost_message, somebody_elses_message)),
        *((letter, other_strategy) for letter in "ABD"),
        ("A", failed_push),
        ("B", early_sms),
        ("B", failed_push),
        ("C", sms_after_the_read),
        ("C", forgotten_read),
        ("C", cancelled_for_another_reason),
        ("D", failed_push),
        ("E", eleven_minutes),
        ("E", second_message),
    ],
)
def test_a_story_that_went_otherwise_is_a_mismatch(story: Story, letter: str, spoil: Spoil) -> None:
    scene = next(scene for scene in SCENES if scene.letter == letter)
    played = copy.deepcopy(next(each for each in story["scenes"] if each["scene"] == letter))
    assert all(check.holds for check in judged(scene, played))
    spoil(played)
    assert not all(check.holds for check in judged(scene, played))


def judged(scene: Any, played: Story) -> list[Any]:
    return judge(Told(scene, played["event"], played["journey"], played["outbox"]))


@pytest.fixture
def other_settings(redis_url: str, postgres_url: str, tmp_path: Path) -> Iterator[Program]:
    """A sandbox server whose SMS step is not ten minutes after the start."""
    environ = environment(None, redis_url, postgres_url, TOCSIN_ESCALATION__SMS_AFTER="11m")
    program = Program(tmp_path, "serve", "--sandbox", environ=environ)
    with running(program):
        yield program


def test_a_mismatch_ends_it_with_1(other_settings: Program) -> None:
    result = CliRunner().invoke(main, ["demo"], env=other_settings.environ)
    assert result.exit_code == 1, result.output
    told = " ".join(result.stdout.split())
    assert "MISMATCH the SMS is scheduled 10 minutes after the start, but found: 11 minutes" in told
    assert "1 of 25 do not hold." in told


@pytest.fixture
def no_sandbox(redis_url: str, postgres_url: str, tmp_path: Path) -> Iterator[Program]:
    program = Program(tmp_path, "serve", environ=environment(None, redis_url, postgres_url))
    with running(program):
        yield program


def test_without_a_sandbox_nothing_is_posted(no_sandbox: Program) -> None:
    result = CliRunner().invoke(main, ["demo"], env=no_sandbox.environ)
    assert result.exit_code == 1
    assert "tocsin serve --sandbox" in result.stderr
    listed = CliRunner().invoke(main, ["status", "--json"], env=no_sandbox.environ)
    assert json.loads(listed.stdout) == {"data": []}
