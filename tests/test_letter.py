"""A mail's headers and parts, whatever callers write."""

from datetime import UTC, datetime
from email import message_from_bytes, policy
from email.message import EmailMessage
from email.utils import parsedate_to_datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fakes.behaviour import a_message
from tocsin.channels.contract import Message
from tocsin.channels.letter import Letterhead, compose
from tocsin.domain.delivery import Channel
from tocsin.domain.plan import Priority
from tocsin.domain.text import fit_characters, one_line, plain

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
HEAD = Letterhead("tell@mail.example.org", "Tocsin & Söhne", "1 Main Street, Springfield", "https://tell.example.org")
HEADERS = {
    "From",
    "To",
    "Subject",
    "Date",
    "Message-ID",
    "List-Unsubscribe",
    "Auto-Submitted",
    "X-Tocsin-Delivery",
    "X-Tocsin-Notification",
    "X-Tocsin-Attempt",
    "MIME-Version",
    "Content-Type",
}


def composed(message: Message, head: Letterhead = HEAD, to: str = "ann@example.org") -> EmailMessage:
    raw = compose(message, head, to, now=NOW)
    assert all(len(line) <= 998 for line in raw.split(b"\r\n")), "RFC 5322"
    assert b"\n" not in raw.replace(b"\r\n", b"")
    return message_from_bytes(raw, policy=policy.default)


def a_mail(**changes: Any) -> Message:
    return a_message(Channel.EMAIL, **({"priority": Priority.MEDIUM} | changes))


def part(mail: EmailMessage, kind: str) -> str:
    found = mail.get_body((kind,))
    assert found is not None
    return str(found.get_content()).replace("\r\n", "\n")


def test_the_headers_are_all_there() -> None:
    message = a_mail(attempt=2, name="Ann Ünal")
    mail = composed(message)
    assert set(mail.keys()) == HEADERS
    assert mail["From"].addresses[0].display_name == "Tocsin & Söhne"
    assert mail["From"].addresses[0].addr_spec == "tell@mail.example.org"
    assert mail["To"].addresses[0].display_name == "Ann Ünal"
    assert mail["Subject"] == "Approved"
    assert parsedate_to_datetime(mail["Date"]) == NOW
    assert mail["Message-ID"] == f"<{message.delivery}@mail.example.org>"
    assert mail["List-Unsubscribe"] == "<mailto:tell@mail.example.org?subject=unsubscribe>"
    assert (mail["X-Tocsin-Delivery"], mail["X-Tocsin-Attempt"]) == (str(message.delivery), "2")
    assert mail.get_content_type() == "multipart/alternative"


def test_what_matters_is_marked_important() -> None:
    assert composed(a_mail(priority=Priority.CRITICAL))["Importance"] == "High"
    assert composed(a_mail(priority=Priority.LOW))["Importance"] == "Low"


@pytest.mark.parametrize(
    ("event_type", "subject"),
    [("event.approval", "Event approval"), ("community.new_member", "Community new member"), ("..", "Notification")],
)
def test_without_a_title_the_type_is_the_subject(event_type: str, subject: str) -> None:
    assert composed(a_mail(title=None, event_type=event_type))["Subject"] == subject
    assert composed(a_mail(title=" \r\n ", event_type=event_type))["Subject"] == subject


def test_html_in_a_message_is_shown_and_not_obeyed() -> None:
    hostile = '<script>alert(1)</script> <img src=x onerror="y"> & {{ 7*7 }}'
    mail = composed(a_mail(text=hostile, title=hostile, name=hostile))
    html = part(mail, "html")
    assert "<script" not in html
    assert "<img" not in html
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html
    assert "{{ 7*7 }}" in html
    assert hostile in part(mail, "plain")


def test_paragraphs_and_lines_are_kept() -> None:
    html = part(composed(a_mail(text="one\ntwo\r\n\r\n\r\n\r\nthree")), "html")
    assert "one<br>two</p>" in html
    assert ">three</p>" in html


def test_brand_address_and_link_are_in_both_parts() -> None:
    mail = composed(a_mail(metadata={"actionUrl": "/events/9?a=1&b=2"}))
    text, html = part(mail, "plain"), part(mail, "html")
    assert "https://tell.example.org/events/9?a=1&b=2" in text
    assert 'href="https://tell.example.org/events/9?a=1&amp;b=2"' in html
    for shown, said in ((text, "Tocsin & Söhne"), (html, "Tocsin &amp; Söhne")):
        assert said in shown
        assert "1 Main Street, Springfield" in shown


def test_without_an_address_or_a_link_nothing_is_left_of_them() -> None:
    mail = composed(a_mail(), Letterhead("a@example.org", "B", None, None))
    assert "href" not in part(mail, "html")
    assert "None" not in part(mail, "html") + part(mail, "plain")


def test_long_headers_that_programs_read_stay_whole() -> None:
    head = Letterhead(f"{'a' * 60}@{'sub.' * 12}example.org", "B", None, None)
    message = a_mail()
    raw = compose(message, head, "ann@example.org", now=NOW)
    assert f"List-Unsubscribe: <mailto:{head.from_email}?subject=unsubscribe>\r\n".encode() in raw
    assert f"Message-ID: <{message.delivery}@{head.domain}>\r\n".encode() in raw


def test_a_sender_with_odd_characters_is_quoted_in_its_link() -> None:
    mail = composed(a_mail(), Letterhead("a?b&c@example.org", "B", None, None))
    assert mail["List-Unsubscribe"] == "<mailto:a%3Fb%26c@example.org?subject=unsubscribe>"


def test_an_address_beyond_ascii_is_written_as_it_is() -> None:
    raw = compose(a_mail(), HEAD, "δοκιμή@example.org", now=NOW)
    assert "To: δοκιμή@example.org\r\n".encode() in raw


def test_a_long_title_is_cut_in_the_subject() -> None:
    assert len(composed(a_mail(title="x" * 5000))["Subject"]) == 200


@given(st.text(max_size=300), st.text(max_size=300), st.text(max_size=60), st.text(max_size=20), st.text(max_size=40))
def test_no_text_of_a_caller_breaks_out(text: str, title: str, name: str, locale: str, event_type: str) -> None:
    message = a_mail(text=text, title=title, name=name, locale=locale, event_type=event_type)
    mail = composed(message)
    assert set(mail.keys()) == HEADERS
    assert len(mail.keys()) == len(HEADERS)
    assert [str(address.addr_spec) for address in mail["To"].addresses] == ["ann@example.org"]
    assert part(mail, "plain").startswith(plain(text).strip())
    if one_line(title):
        assert " ".join(str(mail["Subject"]).split()) == " ".join(fit_characters(one_line(title), 200).split())
