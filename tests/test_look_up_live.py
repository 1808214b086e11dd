"""The whole of it in one real process: an answer is lost, no receipt comes, and the provider is asked."""

from pathlib import Path

import pytest

from tests.program import Program, client, environment, eventually, posted, running

pytestmark = [pytest.mark.servers, pytest.mark.processes]

HANGS_UP_AND_TELLS_NOTHING = "+15005550034"


def test_an_sms_in_doubt_is_settled_by_asking_the_sandbox(redis_url: str, postgres_url: str, tmp_path: Path) -> None:
    quick = {"TOCSIN_UNCERTAIN__FIRST_AFTER": "500ms", "TOCSIN_UNCERTAIN__EVERY": "1s"}
    program = Program(tmp_path, "serve", "--sandbox", environ=environment(None, redis_url, postgres_url, **quick))
    with running(program), client(program.url) as api:
        posted(api, recipients=[{"id": "asha", "phone": HANGS_UP_AND_TELLS_NOTHING}], channels=["SMS"])

        def settled() -> bool:
            rows = api.get("/api/deliveries?userId=asha&channel=SMS").json()["data"]
            return [row["status"] in {"SENT", "DELIVERED"} for row in rows] == [True]

        eventually(settled)
        (answer,) = api.get("/api/reconciliation/look-ups").json()["data"]
        assert (answer["result"], answer["method"], answer["confidence"]) == ("FOUND", "time_window", "high")
        assert api.get("/api/sandbox/outbox?channel=SMS").json()["received"] == 1
