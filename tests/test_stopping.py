"""A process that is told to stop does so within its time, and nothing is lost or doubled (R5)."""

import signal
import subprocess
import sys
from pathlib import Path

import psycopg2
import pytest

from tests.program import Program, client, environment, eventually, running
from tests.slow_mail import SlowMail
from tests.stopping import ACTORS_S, HTTP_S, SHORT, post_mails, statuses, stopped_in_s

pytestmark = [pytest.mark.servers, pytest.mark.processes, pytest.mark.timeout(120)]


def test_sigterm_under_load_finishes_what_is_sent_and_leaves_the_rest_to_others(
    redis_url: str, postgres_url: str, mail: SlowMail, tmp_path: Path
) -> None:
    mail.delay_s = 1.0
    environ = environment(None, redis_url, postgres_url, **SHORT, **mail.environ)
    first = Program(tmp_path, "serve", environ=environ)
    with running(first):
        with client(first.url) as api:
            post_mails(api, 600)
            eventually(lambda: mail.under_way == 100)
        assert stopped_in_s(first) <= HTTP_S + ACTORS_S + 1
    assert mail.under_way == 0
    mail.delay_s = 0
    found = statuses(postgres_url)
    sent = {delivery for delivery, status in found.items() if status == "SENT"}
    assert sent == set(mail.taken)
    assert set(found.values()) == {"SENT", "QUEUED"}, "the load lasted, and nothing is uncertain"
    second = Program(tmp_path, "actors", environ=environ)
    with running(second):
        eventually(lambda: set(statuses(postgres_url).values()) == {"SENT"}, limit_s=30)
        assert second.stop() == 0
    assert len(mail.taken) == 600
    assert set(mail.taken.values()) == {1}


def test_a_send_that_stalls_at_the_limit_is_left_to_its_lease_and_shows_as_uncertain(
    redis_url: str, postgres_url: str, mail: SlowMail, tmp_path: Path
) -> None:
    mail.delay_s = 60.0
    given = SHORT | {"TOCSIN_EMAIL__ON_UNCERTAIN": "hold"}
    environ = environment(None, redis_url, postgres_url, **given, **mail.environ)
    stalled, heir = Program(tmp_path, "serve", environ=environ), Program(tmp_path, "actors", environ=environ)
    with running(stalled):
        with client(stalled.url) as api:
            post_mails(api, 3)
        eventually(lambda: mail.under_way == 3)
        assert stopped_in_s(stalled) <= HTTP_S + ACTORS_S + 2
        assert set(statuses(postgres_url).values()) == {"SENDING"}
        with running(heir):
            eventually(lambda: set(statuses(postgres_url).values()) == {"UNCERTAIN"}, limit_s=15)
    assert set(mail.taken.values()) == {1}


def test_a_long_journal_is_left_to_others_when_time_is_up(
    redis_url: str, postgres_url: str, mail: SlowMail, tmp_path: Path
) -> None:
    environ = environment(None, redis_url, postgres_url, **SHORT, **mail.environ)
    environ["TOCSIN_EMAIL__SMTP__CONNECTIONS"] = "20"
    first, second = Program(tmp_path, "serve", environ=environ), Program(tmp_path, "actors", environ=environ)
    blocking = psycopg2.connect(postgres_url)
    with running(first), blocking, blocking.cursor() as cursor:
        # Whoever stores something waits, as long as a slow disk may make it wait.
        cursor.execute("lock table deliveries in access exclusive mode")
        with client(first.url) as api:
            post_mails(api, 100)
        eventually(lambda: len(mail.taken) == 100)
        assert stopped_in_s(first) <= HTTP_S + ACTORS_S + 2
    blocking.close()
    with running(second):
        eventually(lambda: list(statuses(postgres_url).values()) == ["SENT"] * 100, limit_s=30)
    assert set(mail.taken.values()) == {1}


DEEP = """
import asyncio, os, signal
from functools import partial
import uvloop
from tocsin.cli.stopping import Stopping
signals, kill, process, once = Stopping(), os.kill, os.getpid(), iter([True])
def deeper():
    try:
        deeper()
    except RecursionError:
        if next(once, False):
            kill(process, signal.SIGTERM)
async def run():
    told = asyncio.Event()
    signals.to(partial(asyncio.get_running_loop().call_soon_threadsafe, told.set), 60)
    deeper()
    await asyncio.wait_for(told.wait(), 20)
signals.listen()
uvloop.run(run())
"""


def test_a_signal_is_heard_wherever_the_program_is() -> None:
    program = subprocess.run([sys.executable, "-c", DEEP], capture_output=True, text=True, check=False)
    assert (program.returncode, program.stderr) == (0, "")


FAILING = """
import os, signal
from contextlib import contextmanager
from tocsin.cli import compose
from tocsin.domain.settings import load
@contextmanager
def servers(settings, ephemeral):
    try:
        yield settings.with_values({"postgres.url": "postgresql://127.0.0.1:1/none", "redis.url": "redis://127.0.0.1:1"})
    finally:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        os._exit(7)
compose.servers = servers
too_short = {"actors.lease": "1s", "email.smtp.host": "127.0.0.1", "email.smtp.from_email": "tell@example.org"}
compose.run(load({}).with_values(too_short), compose.Parts(http=False, queues=("send_email",)))
"""


def test_a_process_that_fails_still_hears_signals_while_its_servers_end() -> None:
    program = subprocess.run([sys.executable, "-c", FAILING], capture_output=True, text=True, check=False)
    assert program.returncode == 1, program.stderr
    assert "stopped by a second signal" in program.stderr


INTERRUPTED = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
class Interrupting:
    def find_spec(self, name, path=None, target=None):
        if name == "{module}":
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Interrupting())
sys.argv = ["tocsin", "serve"]
import tocsin.app
"""


@pytest.mark.parametrize("module", ["loguru", "uvicorn", "dramatiq"])
def test_a_ctrl_c_while_the_program_is_read_says_nothing(module: str) -> None:
    program = subprocess.run(
        [sys.executable, "-c", INTERRUPTED.format(module=module)], capture_output=True, text=True, check=False
    )
    assert (program.returncode, program.stderr) == (-signal.SIGINT, "")
