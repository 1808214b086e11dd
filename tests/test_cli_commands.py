"""The commands against a real server: `tocsin serve --sandbox`, as `make run` starts it."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner, Result

from tests.program import Program, environment, eventually
from tocsin.app import main
from tocsin.channels.sandbox.sandbox import Sandbox

pytestmark = [pytest.mark.servers, pytest.mark.processes]


class Shell:
    """Runs commands with the environment of a server's machine."""

    def __init__(self, environ: dict[str, str]) -> None:
        self.environ = environ

    def run(self, *arguments: str, status: int = 0, **more: str) -> Result:
        """Runs `tocsin <arguments>`, which must end with `status`."""
        result = CliRunner().invoke(main, arguments, env={**self.environ, **more})
        told = f"{result.stdout}\n{result.stderr}\n{result.exception!r}"
        assert result.exit_code == status, told
        assert status == 0 or isinstance(result.exception, SystemExit), told
        return result

    def answer(self, *arguments: str, status: int = 0, **more: str) -> Any:
        """What `tocsin <arguments> --json` answers."""
        return json.loads(self.run(*arguments, "--json", status=status, **more).stdout)


@pytest.fixture
def shell(sandbox_server: Program) -> Shell:
    return Shell(sandbox_server.environ)


@pytest.fixture
def api(sandbox_server: Program) -> Iterator[httpx.Client]:
    key = Path(sandbox_server.environ["TOCSIN_DATA__DIR"], "admin_key").read_text().strip()
    headers = {"Authorization": f"Bearer {key}"}
    with httpx.Client(base_url=sandbox_server.url, headers=headers, timeout=20) as made:
        yield made


def outbox(api: httpx.Client, notification: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = api.get("/api/sandbox/outbox", params={"notification": notification}).json()["data"]
    return found


def test_what_a_command_is_for_is_said_in_one_line() -> None:
    for group in ((), ("keys",), ("users",), ("topics",)):
        told = CliRunner().invoke(main, [*group, "--help"]).output
        assert "..." not in told.partition("Commands:")[2], told


def test_a_message_to_an_address_goes_out_by_mail_alone(shell: Shell, api: httpx.Client) -> None:
    sent = shell.answer("send", "--to", "asha@example.org", "--title", "Hello", "--message", "It works")
    (journey,) = sent["journeys"]
    assert [(each["channel"], each["status"]) for each in journey["deliveries"]] == [("EMAIL", "SENT")]
    (mail,) = outbox(api, journey["notification"]["id"])
    assert (mail["to"], mail["subject"]) == ("asha@example.org", "Hello")


def test_a_message_to_a_number_goes_out_by_sms_and_is_told_step_by_step(shell: Shell) -> None:
    told = shell.run("send", "--to", "+1 415 555 0123", "--message", "It works").stdout
    assert "SMS     sending" in told
    assert "SMS     sent" in told


def test_a_message_to_a_user_takes_the_channel_asked_for(shell: Shell, api: httpx.Client) -> None:
    assert api.put("/api/users/cli-1", json={"email": "one@example.org", "phone": "+14155550123"}).status_code == 200
    sent = shell.answer("send", "--to", "cli-1", "--channel", "sms", "--priority", "high", "--message", "It works")
    assert [each["channel"] for each in sent["journeys"][0]["deliveries"]] == ["SMS"]
    assert sent["journeys"][0]["notification"]["priority"] == "HIGH"


def test_a_message_that_reaches_nobody_ends_with_1(shell: Shell, api: httpx.Client) -> None:
    assert api.put("/api/users/cli-2", json={"email": "two@example.org"}).status_code == 200
    told = shell.run("send", "--to", "cli-2", "--channel", "SMS", "--message", "It works", status=1).stdout
    assert "no_address" in told


def test_somebody_unknown_among_others_is_named_and_ends_with_1(shell: Shell) -> None:
    arguments = ("send", "--to", "+14155550123", "--to", "nobody-knows", "--channel", "SMS", "--message", "It works")
    assert "no such user: nobody-knows" in shell.run(*arguments, status=1).stdout


def test_a_problem_is_told_in_words_and_with_json_as_its_document(shell: Shell) -> None:
    arguments = ("send", "--to", "nobody-knows", "--message", "It works")
    assert "(no_recipients)" in shell.run(*arguments, status=1).stderr
    assert shell.answer(*arguments, status=1)["code"] == "no_recipients"


@pytest.mark.parametrize("to", ["not an id", "+123", "+1 415 555 0123 ext. 4"])
def test_what_is_neither_user_nor_address_is_wrong_use(shell: Shell, to: str) -> None:
    assert "--to" in shell.run("send", "--to", to, "--message", "x", status=2).stderr


def test_a_message_is_not_waited_for_longer_than_asked(shell: Shell) -> None:
    arguments = ("--strategy", "ESCALATION", "--channel", "EMAIL", "--wait", "0.5", "--message", "x")
    told = shell.run("send", "--to", "asha@example.org", *arguments, status=1).stdout
    assert "not final after 0.5 s" in told


def test_a_message_need_not_be_followed(shell: Shell) -> None:
    assert shell.answer("send", "--to", "asha@example.org", "--wait", "0", "--message", "x")["journeys"] == []


def test_an_event_a_notification_a_delivery_and_a_provider_s_id_are_all_found(shell: Shell) -> None:
    sent = shell.answer("send", "--to", "+14155550124", "--title", "Found", "--message", "x")
    (journey,) = sent["journeys"]
    event, note, delivery = sent["posted"]["id"], journey["notification"]["id"], journey["deliveries"][0]
    assert shell.answer("status", event)["event"]["counts"]["recipients"] == 1
    assert shell.answer("status", note)["notification"]["title"] == "Found"
    assert shell.answer("status", delivery["id"])["delivery"]["channel"] == "SMS"
    assert shell.answer("status", delivery["providerId"])["delivery"]["id"] == delivery["id"]
    for reference in (event, note, delivery["id"], delivery["providerId"]):
        assert delivery["id"] in shell.run("status", reference).stdout


def test_the_journey_is_told_in_the_order_of_time(shell: Shell) -> None:
    note = shell.answer("send", "--to", "+14155550125", "--message", "x")["journeys"][0]["notification"]["id"]
    told = shell.run("status", note).stdout
    assert 0 < told.index("accepted") < told.index("queued") < told.index("sending") < told.rindex("sent ")


def test_an_id_that_nothing_has_ends_with_1(shell: Shell) -> None:
    for reference in ("01a1fe05-4875-7d76-b7b8-396fc73e7214", "01a1fe05-4875-8976-8498-396c693ded98", "SMnothing"):
        assert "Nothing has the id" in shell.run("status", reference, status=1).stderr


def test_deliveries_are_found_by_person_status_channel_and_time(shell: Shell) -> None:
    shell.run("send", "--to", "found@example.org", "--message", "x")
    (found,) = shell.answer("status", "--user", "found@example.org", "--status", "sent", "--since", "1h")["data"]
    assert (found["channel"], found["status"]) == ("EMAIL", "SENT")
    for nothing in (["--channel", "SMS"], ["--until", "2020-01-01T00:00:00Z"], ["--status", "FAILED"]):
        assert shell.answer("status", "--user", "found@example.org", *nothing)["data"] == []
    assert "No deliveries." in shell.run("status", "--user", "nobody").stdout


def test_that_everything_could_be_stored_is_said(shell: Shell) -> None:
    assert "Everything could be stored" in shell.run("bad-facts", "list").stdout
    assert shell.answer("bad-facts", "list") == {"data": []}
    assert shell.answer("bad-facts", "retry", "1-1") == {"retried": 0, "remaining": 0}
    shell.run("bad-facts", "retry", "nonsense", status=1)


def test_dead_letters_are_listed_by_cause_replayed_and_put_aside(shell: Shell, api: httpx.Client) -> None:
    """The sandbox's SMS server refuses this number."""
    shell.answer("dead-letters", "discard", "--all", "--because", "of other tests")
    shell.run("send", "--to", "+15005550001", "--message", "x", status=1)
    (letter,) = shell.answer("dead-letters", "list", "--channel", "SMS")["data"]
    assert letter["id"] in shell.run("dead-letters", "list").stdout
    assert shell.answer("dead-letters", "causes", "--user", letter["recipientId"])["total"] == 1
    assert letter["reason"] in shell.run("dead-letters", "causes").stdout
    aside = ("dead-letters", "discard", letter["id"], "--because", "no such number")
    assert shell.answer(*aside)["discarded"] == 1
    shell.run(*aside, status=1)
    assert shell.answer("dead-letters", "list")["data"] == []
    assert shell.answer("dead-letters", "list", "--discarded", "yes")["data"][0]["discardReason"] == "no such number"
    assert "0 replayed" in shell.run("dead-letters", "retry", "--all").stdout
    assert shell.answer("dead-letters", "retry", letter["id"])["replayed"] == 1
    assert shell.answer("dead-letters", "retry", "01a1fe05-4875-8976-8498-396c693ded98", status=1)["skipped"] == 1


@pytest.mark.parametrize("command", [("retry",), ("discard", "--because", "x")])
def test_nothing_named_is_wrong_use_where_it_would_mean_all(shell: Shell, command: tuple[str, ...]) -> None:
    assert "--all" in shell.run("dead-letters", *command, status=2).stderr


def test_a_time_without_a_zone_is_wrong_use(shell: Shell) -> None:
    assert "--since" in shell.run("status", "--since", "2026-01-01T00:00:00", status=2).stderr


def test_a_key_is_made_works_is_listed_and_revoked(shell: Shell) -> None:
    made = shell.answer("keys", "create", "shop", "--role", "viewer")
    assert made["role"] == "VIEWER"
    shell.run("status", "--key", made["secret"])
    assert (
        "(forbidden)"
        in shell.run("send", "--to", "x@example.org", "--message", "x", "--key", made["secret"], status=1).stderr
    )
    listed = {key["id"]: key for key in shell.answer("keys", "list")["data"]}
    assert listed[made["id"]]["revokedAt"] is None
    assert made["secret"] not in shell.run("keys", "list").stdout
    shell.run("keys", "revoke", made["id"])
    assert "(token_invalid)" in shell.run("status", "--key", made["secret"], status=1).stderr


def test_a_key_is_replaced_by_another_of_its_name(shell: Shell) -> None:
    made = shell.answer("keys", "create", "rotated", "--role", "viewer")
    new = shell.answer("keys", "rotate", made["id"])
    assert (new["name"], new["role"]) == ("rotated", "VIEWER")
    shell.run("status", "--key", new["secret"])
    shell.run("status", "--key", made["secret"], status=1)


def test_a_key_that_is_not_there_cannot_be_revoked(shell: Shell) -> None:
    shell.run("keys", "revoke", "01a1fe05-4875-7d76-b7b8-396fc73e7214", status=1)


def test_a_token_is_the_users_own(shell: Shell, sandbox_server: Program) -> None:
    token = shell.run("keys", "token", "cli-3").stdout.splitlines()[0]
    mine = {"Authorization": f"Bearer {token}"}
    assert httpx.get(f"{sandbox_server.url}/api/notifications/unread-count", headers=mine).json() == {"unreadCount": 0}
    assert httpx.get(f"{sandbox_server.url}/api/events", headers=mine).status_code == 403


def test_people_are_imported_and_bad_lines_named(shell: Shell, api: httpx.Client, tmp_path: Path) -> None:
    table = tmp_path / "people.csv"
    table.write_text(
        "id,email,phone,name,locale\n"
        "import-1,one@example.org,+14155550101,One,en\n"
        "import-2,no address,,Two,en\n"
        "import-3,three@example.org,,Three,not a locale\n"
        "import-4,,+14155550104,Four,en\n"
    )
    imported = shell.answer("users", "import", str(table), status=1)
    assert imported["imported"] == 2
    assert [(bad["line"], bad["column"]) for bad in imported["bad"]] == [(3, "email"), (4, "locale")]
    assert api.get("/api/users/import-1").json()["phone"] == "+14155550101"
    assert api.get("/api/users/import-3").status_code == 404
    assert "2 lines were not imported" in shell.run("users", "import", str(table), status=1).stdout


def test_a_large_table_is_imported_whole(shell: Shell, api: httpx.Client, tmp_path: Path) -> None:
    table = tmp_path / "people.csv"
    table.write_text("id;name\n" + "".join(f"many-{number};Person {number}\n" for number in range(450)))
    assert shell.answer("users", "import", str(table)) == {"imported": 450, "badCount": 0, "bad": []}
    assert api.get("/api/users/many-449").json()["name"] == "Person 449"


def test_a_topic_is_made_filled_from_a_table_and_told(shell: Shell, api: httpx.Client, tmp_path: Path) -> None:
    people, members, report = (tmp_path / name for name in ("people.csv", "members.csv", "bad.csv"))
    people.write_text(
        "id,attributes.age:number,attributes.languages:list,attributes\n"
        'crowd-1,41,hi|en,"{""gotra"": ""Sharma""}"\ncrowd-2,17,,\ncrowd-3,old,,\n'
        "crowd-4,nan,,\ncrowd-5,1e400,,\n"
    )
    imported = shell.answer("users", "import", str(people), "--report", str(report), status=1)
    assert (imported["imported"], imported["bad"][0]["column"]) == (2, "attributes.age:number")
    assert report.read_text().splitlines() == [
        "line,column,reason,mend",
        "4,attributes.age:number,it is not a number,",
        "5,attributes.age:number,it is not a number,",
        "6,attributes.age:number,it is not within 1e+15,",
    ]
    attributes = api.get("/api/users/crowd-1").json()["attributes"]
    assert attributes == {"age": 41, "languages": ["hi", "en"], "gotra": "Sharma"}
    members.write_text("topic,user,roles,kind\ncrowd:1,crowd-1,head|elder,crowd\ncrowd:1,crowd-2,,\ncrowd:2,a b,,\n")
    refused = shell.answer("topics", "import", str(members), status=1)
    assert [(bad["line"], bad["column"]) for bad in refused["bad"]] == [(2, "topic"), (3, "topic"), (4, "user")]
    made = shell.answer("topics", "import", str(members), "--make", status=1)
    assert (made["added"], made["topicsMade"], made["badCount"]) == (2, 1, 1)
    people.write_text("id,attributes.age:number,topics\ncrowd-1,41,crowd:1=head|crowd:3=elder\ncrowd-2,17,crowd:4\n")
    with_topics = shell.answer("users", "import", str(people), status=1)
    assert [(bad["line"], bad["column"]) for bad in with_topics["bad"]] == [(2, "topics"), (3, "topics")]
    assert all("is stored" in bad["reason"] and "--make" in bad["mend"] for bad in with_topics["bad"])
    assert shell.answer("users", "import", str(people), "--make")["imported"] == 2
    joined = shell.answer("topics", "members", "crowd:3")["data"]
    assert [(each["userId"], each["roles"]) for each in joined] == [("crowd-1", ["elder"])]
    assert "head" in shell.run("topics", "members", "crowd:1").stdout
    assert [each["key"] for each in shell.answer("topics", "list", "--kind", "crowd")["data"]] == ["crowd:1"]
    told = shell.answer("send", "--topic", "crowd:1=head", "--channel", "IN_APP", "--message", "x")
    assert (told["event"]["status"], told["event"]["counts"]["delivered"]) == ("COMPLETED", 1)
    told = shell.answer("send", "--segment", '{"age": {"lt": 18}}', "--channel", "IN_APP", "--message", "x")
    assert told["event"]["counts"]["delivered"] == 1
    assert "not JSON" in shell.run("send", "--segment", "{", "--message", "x", status=2).stderr
    assert "name somebody" in shell.run("send", "--message", "x", status=2).stderr
    shell.run("topics", "make", "crowd:1", "--kind", "region")
    shell.run("topics", "remove", "crowd:1")
    assert "(not_found)" in shell.run("topics", "members", "crowd:1", status=1).stderr


def test_what_is_no_table_ends_with_1_and_says_why(shell: Shell, tmp_path: Path) -> None:
    table = tmp_path / "people.csv"
    table.write_text("fax,name\n1,2\n")
    assert "no column 'fax'" in shell.run("users", "import", str(table), status=1).stderr
    table.write_bytes("id,name\nu1,Zoë\n".encode("latin-1"))
    assert "save it as UTF-8" in shell.run("users", "import", str(table), status=1).stderr
    assert "does not exist" in shell.run("users", "import", str(tmp_path / "nowhere.csv"), status=2).stderr


def test_a_command_without_a_valid_key_ends_with_1(shell: Shell) -> None:
    assert "(token_invalid)" in shell.run("status", "--key", "tk_wrong", status=1).stderr


def test_the_doctor_warns_of_what_is_not_configured(shell: Shell) -> None:
    examined = shell.answer("doctor", TOCSIN_HTTP__PORT="1")
    told = {(each["level"], each["subject"]) for each in examined["findings"]}
    assert {("warn", "email"), ("warn", "sms"), ("warn", "push")} <= told


def test_the_doctor_finds_the_servers_that_run_here(shell: Shell) -> None:
    examined = shell.answer("doctor")
    told = [(each["level"], each["subject"]) for each in examined["findings"]]
    assert examined["ok"]
    assert ("ok", "postgres") in told
    assert ("ok", "redis") in told
    assert {("ok", "email"), ("ok", "sms"), ("ok", "push")} <= set(told), "its sandbox carries them"
    assert any("admin_key is 0 days old" in each["told"] for each in examined["findings"])


@pytest.fixture
def providers() -> Iterator[dict[str, str]]:
    """What the environment says of providers that are servers of our own."""
    sandbox = Sandbox()
    sandbox.start()
    of_channels = ("TOCSIN_EMAIL", "TOCSIN_SMS", "TOCSIN_PUSH")
    yield {name: value for name, value in environment(sandbox, "", "").items() if name.startswith(of_channels)}
    sandbox.stop()


def failures(examined: dict[str, Any]) -> list[dict[str, Any]]:
    return [finding for finding in examined["findings"] if finding["level"] == "fail"]


def test_the_doctor_logs_in_everywhere_with_a_key_whose_lines_end_in_a_literal_n(
    shell: Shell, providers: dict[str, str]
) -> None:
    given = dict(providers)
    key = given.pop("TOCSIN_PUSH__FCM__PRIVATE_KEY")
    given["FIREBASE_PRIVATE_KEY"] = key.replace("\n", "\\n")
    examined = shell.answer("doctor", **given)
    levels = {each["subject"]: each["level"] for each in examined["findings"] if each["subject"] in {"email", "push"}}
    assert levels == {"email": "ok", "push": "ok"}
    assert "sms" in {each["subject"] for each in examined["findings"] if each["level"] == "ok"}
    assert key.splitlines()[1] not in json.dumps(examined)


def test_the_doctor_ends_with_1_where_a_login_fails(shell: Shell, providers: dict[str, str]) -> None:
    given = providers | {"TOCSIN_SMS__TWILIO__AUTH_TOKEN": "0" * 32}
    (failed,) = failures(shell.answer("doctor", status=1, **given))
    assert failed["subject"] == "sms"
    assert "TWILIO_AUTH_TOKEN" in failed["mend"]


def test_the_doctor_ends_with_1_where_a_setting_is_wrong_and_names_it(shell: Shell) -> None:
    (failed,) = shell.answer("doctor", status=1, TOCSIN_HTTP__PORTT="1")["findings"]
    assert "TOCSIN_HTTP__PORTT" in failed["told"]


def test_the_doctor_names_a_redis_and_a_postgres_that_do_not_answer(shell: Shell) -> None:
    away = {"REDIS_URL": "redis://127.0.0.1:1", "DATABASE_URL": "postgresql://tocsin@127.0.0.1:1/tocsin"}
    failed = [
        each["subject"] for each in shell.answer("doctor", status=1, **away)["findings"] if each["level"] == "fail"
    ]
    assert failed == ["postgres", "redis"]


def test_migrating_twice_changes_nothing_more(shell: Shell, postgres_url: str) -> None:
    assert shell.answer("migrate", DATABASE_URL=postgres_url) == {"applied": []}


def test_migrating_our_own_postgres_while_it_runs_is_refused_with_its_reason(shell: Shell) -> None:
    assert "in use by another Tocsin" in shell.run("migrate", status=1).stderr


def test_without_a_server_every_command_says_what_to_do(tmp_path: Path) -> None:
    alone = Shell({"TOCSIN_DATA__DIR": str(tmp_path), "TOCSIN_HTTP__PORT": "1"})
    for command in (["status"], ["demo"], ["keys", "list"], ["send", "--to", "u1", "--message", "x"]):
        assert "tocsin serve" in alone.run(*command, status=1).stderr


def test_reconcile_says_in_numbers_what_differs(shell: Shell) -> None:
    run = shell.answer("reconcile", "--repair")
    assert (run["repair"], run["inSync"]) == (True, True), run
    told = shell.run("reconcile").stdout
    assert "deliveries are open in Postgres" in told
    assert "in sync" in told
    assert len(shell.answer("reconcile", "--history", "2")["data"]) == 2
    assert "in sync" in shell.run("reconcile", "--history", "2").stdout


def test_what_is_due_soon_is_counted_beforehand(shell: Shell, api: httpx.Client) -> None:
    before = shell.answer("reconcile", "--preflight")
    # Its SMS waits for ten minutes, which is between the five and fifteen that are looked at.
    event = {"type": "x.y", "message": "x", "recipients": [{"id": "due-soon", "phone": "+14155550188"}]}
    answer = api.post("/api/notifications", json={**event, "deliveryStrategy": "ESCALATION"})
    assert answer.status_code == 202, answer.text
    seen = eventually(lambda: due if (due := shell.answer("reconcile", "--preflight"))["due"] > before["due"] else None)
    assert (seen["due"] - before["due"], seen["hindered"]) == (1, before["hindered"])
    assert f"{seen['due']} are due from" in shell.run("reconcile", "--preflight").stdout


def test_an_event_with_a_key_is_replaced_and_cancelled_by_it(shell: Shell) -> None:
    arguments = ("send", "--to", "keyed@example.org", "--strategy", "ESCALATION", "--wait", "0", "--event-key", "cli:1")
    first = shell.answer(*arguments, "--message", "one")["posted"]
    assert shell.answer(*arguments, "--message", "one")["posted"]["id"] == first["id"]
    assert "which says the same" in shell.run(*arguments, "--message", "one").stdout
    second = shell.answer(*arguments, "--message", "two")["posted"]
    assert second["replacedId"] == first["id"]
    done = shell.answer("cancel", "--event-key", "cli:1", "--reason", "called off")
    assert (done["ids"], done["status"], done["cancelledCount"]) == ([second["id"]], "DONE", 1)
    told = shell.run("status", "--watch", second["id"]).stdout
    assert "COMPLETED: 1 recipients, 1 notifications, 0 read; 1 cancelled" in told
    assert json.loads(shell.run("status", "--watch", second["id"], "--json").stdout)["final"]


def test_what_is_to_be_cancelled_has_to_be_said(shell: Shell) -> None:
    shell.run("cancel", "--reason", "x", status=2)
    assert "0 deliveries will not go out" in shell.run("cancel", "--type", "nothing.has.it", "--reason", "x").stdout
    shell.run("status", "--watch", status=2)
    shell.run("status", "--watch", "SM123", status=2)
