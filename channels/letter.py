"""A message as mail: a text part, an HTML part, and headers that nobody's text can break out of."""

import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from email.utils import format_datetime
from functools import lru_cache
from typing import Final
from urllib.parse import quote

from jinja2 import StrictUndefined
from jinja2.sandbox import ImmutableSandboxedEnvironment

from tocsin.channels.contract import Message
from tocsin.channels.links import action_link
from tocsin.channels.mime import alternatives, header, mailbox_header, text_header
from tocsin.domain.plan import Priority
from tocsin.domain.text import fit_characters, one_line, plain

_LONGEST_SUBJECT: Final = 200
_LONGEST_NAME: Final = 100

_TEXT: Final = """\
{{ text }}
{%- if link %}

{{ link }}
{%- endif %}

--\x20
{{ brand }}
{%- if postal_address %}
{{ postal_address }}
{%- endif %}
"""

_HTML: Final = """\
<!DOCTYPE html>
<html lang="{{ language }}">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{{ subject }}</title>
</head>
<body style="margin:0;padding:24px 12px;background:#f4f5f7;font:16px/1.5 system-ui,'Segoe UI',Roboto,sans-serif">
<table role="presentation" align="center" width="100%" cellpadding="0" cellspacing="0" style="max-width:600px">
<tr><td style="padding:8px 24px;color:#5b6472;font-weight:600">{{ brand }}</td></tr>
<tr><td style="padding:24px;background:#ffffff;color:#1c2430;border-radius:8px">
<h1 style="margin:0 0 16px;font-size:20px;line-height:1.3">{{ subject }}</h1>
{%- for paragraph in paragraphs %}
<p style="margin:0 0 16px">{% for line in paragraph %}{{ line }}{% if not loop.last %}<br>{% endif %}{% endfor %}</p>
{%- endfor %}
{%- if link %}
<p style="margin:24px 0 8px"><a href="{{ link }}" rel="noopener" style="display:inline-block;padding:10px 18px;\
background:#1f5fbf;color:#ffffff;border-radius:6px;text-decoration:none">Open</a></p>
{%- endif %}
</td></tr>
<tr><td style="padding:16px 24px;color:#5b6472;font-size:13px">{{ brand }}\
{%- if postal_address %}<br>{{ postal_address }}{% endif %}</td></tr>
</table>
</body>
</html>
"""

_plain_pages = ImmutableSandboxedEnvironment(autoescape=False, undefined=StrictUndefined, keep_trailing_newline=True)
_TEXT_PAGE: Final = _plain_pages.from_string(_TEXT)
_HTML_PAGE: Final = ImmutableSandboxedEnvironment(autoescape=True, undefined=StrictUndefined).from_string(_HTML)

_IMPORTANCE: Final[Mapping[Priority, str]] = {Priority.HIGH: "High", Priority.CRITICAL: "High", Priority.LOW: "Low"}


@dataclass(frozen=True, slots=True)
class Letterhead:
    """What every mail of one sender has in common."""

    from_email: str
    brand: str
    postal_address: str | None
    public_url: str | None

    @property
    def domain(self) -> str:
        """The right half of every Message-ID."""
        return self.from_email.rpartition("@")[2]


@dataclass(frozen=True, slots=True)
class _Content:
    """What of a message every recipient of it reads alike."""

    title: str | None
    text: str
    event_type: str
    link: str | None
    locale: str | None


@dataclass(frozen=True, slots=True)
class _Written:
    """The subject's header, and everything from MIME-Version to the end."""

    subject: bytes
    body: bytes


def compose(message: Message, head: Letterhead, to: str, *, now: datetime) -> bytes:
    """The mail as it goes over the wire."""
    link = action_link(message.metadata, head.public_url)
    written = _written(_Content(message.title, message.text, message.event_type, link, message.locale), head)
    importance = _IMPORTANCE.get(message.priority)
    names = (
        f"Message-ID: <{message.delivery}@{head.domain}>\r\n"
        f"{_unsubscribe(head)}"
        "Auto-Submitted: auto-generated\r\n"
        f"X-Tocsin-Delivery: {message.delivery}\r\n"
        f"X-Tocsin-Notification: {message.notification}\r\n"
        f"X-Tocsin-Attempt: {message.attempt}\r\n"
    )
    return b"".join(
        (
            _from(head),
            mailbox_header("To", _shown(message.name) if message.name else "", to),
            written.subject,
            _date(now.replace(microsecond=0)),
            names.encode("ascii"),
            header("Importance", importance) if importance else b"",
            written.body,
        )
    )


@lru_cache(maxsize=64)
def _written(content: _Content, head: Letterhead) -> _Written:
    subject = _subject(content.title, content.event_type)
    text, html = _parts(content, head, subject)
    # Drawn when the text is known, so that nobody can write it into one.
    body = header("MIME-Version", "1.0") + alternatives(f"=_{secrets.token_hex(16)}", text, html)
    return _Written(text_header("Subject", subject), body)


@lru_cache(maxsize=8)
def _from(head: Letterhead) -> bytes:
    return mailbox_header("From", _shown(head.brand), head.from_email)


@lru_cache(maxsize=8)
def _unsubscribe(head: Letterhead) -> str:
    value = f"<mailto:{quote(head.from_email, safe='@')}?subject=unsubscribe>"
    return header("List-Unsubscribe", value).decode("ascii")


@lru_cache(maxsize=8)
def _date(second: datetime) -> bytes:
    return header("Date", format_datetime(second))


def _subject(title: str | None, event_type: str) -> str:
    """The title, or what the event's type says: "event.approval" becomes "Event approval"."""
    titled = one_line(title or "")
    if not titled:
        words = one_line(event_type.replace(".", " ").replace("_", " ").replace("-", " "))
        titled = (words[:1].upper() + words[1:]) or "Notification"
    return fit_characters(titled, _LONGEST_SUBJECT)


def _parts(content: _Content, head: Letterhead, subject: str) -> tuple[str, str]:
    text = plain(content.text).strip()
    words = {
        "subject": subject,
        "text": text,
        "paragraphs": [block.split("\n") for block in re.split(r"\n{2,}", text)],
        "link": content.link,
        "brand": one_line(head.brand),
        "postal_address": one_line(head.postal_address or ""),
        "language": one_line(content.locale or "en")[:35].replace("_", "-"),
    }
    return _TEXT_PAGE.render(words), _HTML_PAGE.render(words)


def _shown(name: str) -> str:
    return fit_characters(one_line(name), _LONGEST_NAME)
