"""What the providers share: cleaning, links, threads, and HTTP's certainty about what was handed over."""

import asyncio
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import closing

import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st

from tests.certificates import server_context
from tocsin.channels.cleaning import cleaned, private_parts
from tocsin.channels.contract import OutcomeKind
from tocsin.channels.links import action_link
from tocsin.channels.senders.threads import NotBegun, StillRunning, Threads
from tocsin.channels.senders.transport import Call, GivenUp, after_error, is_loopback, prepare
from tocsin.domain.delivery import Reason

PUBLIC = "https://tell.example.org"


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("User ann@example.org unknown", "User [hidden] unknown"),
        ("<ann.b+c@sub.example.org>: no", "<[hidden]>: no"),
        ("to +14155550101 failed", "to [hidden] failed"),
        ("to 415-555-0101 failed", "to [hidden] failed"),
        ("key AIzaSyD-1234567890abcdefghijklmnop", "key [hidden]"),
        ("550 5.1.1 no such user", "550 5.1.1 no such user"),
        ("line\r\nbreak\x00 and \t more", "line break and more"),
        ("", None),
        (None, None),
    ],
)
def test_what_a_provider_says_is_cleaned(said: str | None, shown: str | None) -> None:
    assert cleaned(said) == shown


def test_what_is_known_to_be_private_is_hidden_in_any_case() -> None:
    said = cleaned("Mailbox ANN.PRIVATE is full, key S3cret", ["s3cret", *private_parts("ann.private@example.org")])
    assert said == "Mailbox [hidden] is full, key [hidden]"


def test_a_short_name_hides_no_part_of_a_word() -> None:
    assert cleaned("More information: info is full", private_parts("info@example.org")) == (
        "More information: [hidden] is full"
    )


@given(st.text(max_size=2000), st.emails(), st.text(max_size=2000))
def test_an_address_is_hidden_in_any_text(before: str, address: str, after: str) -> None:
    said = cleaned(f"{before} {address} {after}", private_parts(address)) or ""
    assert address not in said
    assert len(said) <= 512


def test_cleaning_a_long_text_is_quick() -> None:
    began = time.monotonic()
    for text in ("a@" * 50_000, "1-" * 50_000, "x" * 1_000_000, "a." * 50_000 + "@", "+1 " * 50_000):
        cleaned(text)
    assert time.monotonic() - began < 2


@pytest.mark.parametrize(
    ("given_link", "link"),
    [
        ("https://example.org/a?b=c#d", "https://example.org/a?b=c#d"),
        ("http://example.org", "http://example.org"),
        ("/events/9?x=1", f"{PUBLIC}/events/9?x=1"),
        ("/ünïcode", f"{PUBLIC}/%C3%BCn%C3%AFcode"),
        ("/a%20b", f"{PUBLIC}/a%20b"),
        ('https://example.org/"onclick="x', "https://example.org/%22onclick=%22x"),
        ("//evil.example/x", None),
        ("/\\evil.example", None),
        ("https:/\\evil.example", None),
        ("javascript:alert(1)", None),
        ("JaVaScRiPt:alert(1)", None),
        ("data:text/html,x", None),
        ("ftp://example.org", None),
        ("https://", None),
        ("https://[", None),
        ("events/9", None),
        ("https://example.org/\r\nX: y", None),
        (" https://example.org", None),
        ("https://example.org/" + "x" * 3000, None),
        ("", None),
        (7, None),
        (None, None),
        (["/x"], None),
    ],
)
def test_only_a_safe_link_is_taken(given_link: object, link: str | None) -> None:
    assert action_link({"actionUrl": given_link}, PUBLIC) == link


def test_without_a_public_address_a_path_is_no_link() -> None:
    assert action_link({"actionUrl": "/events/9"}, None) is None
    assert action_link({}, PUBLIC) is None


@pytest.mark.parametrize(
    ("url", "here"),
    [
        ("http://127.0.0.1:8000", True),
        ("http://127.9.9.9", True),
        ("http://[::1]:80/x", True),
        ("http://localhost", True),
        ("https://api.twilio.com", False),
        ("http://10.0.0.1", False),
        ("nonsense", False),
    ],
)
def test_this_machine_is_known(url: str, here: bool) -> None:
    assert is_loopback(url) is here


async def test_threads_are_at_most_as_many_as_said() -> None:
    threads = Threads(3, "test")
    busy, most, lock = 0, 0, threading.Lock()

    def work() -> int:
        nonlocal busy, most
        with lock:
            busy += 1
            most = max(most, busy)
        time.sleep(0.005)
        with lock:
            busy -= 1
        return 1

    assert sum(await asyncio.gather(*(threads.run(work, 5) for _ in range(30)))) == 30
    assert most == 3
    threads.close()


async def test_what_work_raises_is_raised() -> None:
    threads = Threads(1, "test")
    with pytest.raises(ZeroDivisionError):
        await threads.run(lambda: 1 // 0, 5)
    assert await threads.run(lambda: 7, 5) == 7
    threads.close()


async def test_work_that_was_not_begun_in_time_is_never_begun() -> None:
    threads = Threads(1, "test")
    gate = threading.Event()
    done: list[str] = []
    with pytest.raises(StillRunning):
        await threads.run(lambda: done.append("first") if gate.wait(5) else None, 0.02)
    with pytest.raises(NotBegun):
        await threads.run(lambda: done.append("second"), 0.02)
    gate.set()
    await threads.run(lambda: done.append("third"), 5)
    assert done == ["first", "third"]
    threads.close()


async def test_threads_end_when_they_are_closed() -> None:
    threads = Threads(4, "ending")
    await asyncio.gather(*(threads.run(lambda: None, 5) for _ in range(4)))
    threads.close()
    deadline = time.monotonic() + 5
    while any(thread.name.startswith("ending") for thread in threading.enumerate()):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.005)


@pytest.fixture
def session() -> Iterator[requests.Session]:
    made = requests.Session()
    prepare(made, "http://127.0.0.1", connections=2, timeout_s=0.4)
    yield made
    made.close()


def outcome_of(session: requests.Session, url: str) -> tuple[OutcomeKind, Reason | None]:
    call = Call(lambda: session.post(url, data="x"))
    try:
        call()
    except (requests.RequestException, OSError) as error:
        outcome = after_error(call, error)
        return outcome.kind, outcome.reason
    raise AssertionError("it answered")


def test_a_name_that_does_not_resolve_is_known_not_to_have_got_it(session: requests.Session) -> None:
    assert outcome_of(session, "http://nowhere.invalid/") == (OutcomeKind.TEMPORARY, Reason.PROVIDER_DOWN)


def test_a_port_where_nobody_listens_is_known_not_to_have_got_it(session: requests.Session) -> None:
    with closing(socket.socket()) as bound:
        bound.bind(("127.0.0.1", 0))
        port = bound.getsockname()[1]
        assert outcome_of(session, f"http://127.0.0.1:{port}/") == (OutcomeKind.TEMPORARY, Reason.PROVIDER_DOWN)


def test_a_server_that_listens_and_never_answers_leaves_it_unknown(session: requests.Session) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}/"
        assert outcome_of(session, url) == (OutcomeKind.UNKNOWN, Reason.TIMEOUT)
        # The greeting of TLS is not a request: nothing of that was handed over.
        assert outcome_of(session, url.replace("http:", "https:")) == (OutcomeKind.TEMPORARY, Reason.PROVIDER_DOWN)


def test_a_certificate_that_is_not_trusted_keeps_everything_back(session: requests.Session, tmp_path: object) -> None:
    from pathlib import Path

    tls, _ = server_context(Path(str(tmp_path)))
    with closing(socket.create_server(("127.0.0.1", 0))) as server:

        def greet() -> None:
            connection, _ = server.accept()
            with closing(connection), pytest.raises(ssl.SSLError):
                tls.wrap_socket(connection, server_side=True)

        greeting = threading.Thread(target=greet)
        greeting.start()
        call = Call(lambda: session.post(f"https://127.0.0.1:{server.getsockname()[1]}/", data="x"))
        with pytest.raises(requests.exceptions.SSLError) as caught:
            call()
        greeting.join()
    outcome = after_error(call, caught.value)
    assert (outcome.kind, call.handed_over) == (OutcomeKind.TEMPORARY, False)
    assert "certificate" in (outcome.message or "")


def test_what_was_given_up_hands_nothing_over_any_more() -> None:
    call: Call[None] = Call(lambda: None)
    assert after_error(call).kind is OutcomeKind.TEMPORARY
    with pytest.raises(GivenUp):
        call.note(handed_over=True)
    assert not call.handed_over
