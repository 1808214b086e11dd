"""A message as mail: a text part, an HTML part, and headers that nobody's text can break out of."""

import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from email.utils import format_datetime
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


def compose(message: Message, head: Letterhead, to: str, *, now: datetime) -> bytes:
    """The mail as it goes over the wire."""
    subject = subject_of(message)
    text, html = _parts(message, head, subject)
    importance = _IMPORTANCE.get(message.priority)
    return b"".join(
        (
            mailbox_header("From", _shown(head.brand), head.from_email),
            mailbox_header("To", _shown(message.name or ""), to),
            text_header("Subject", subject),
            header("Date", format_datetime(now)),
            header("Message-ID", f"<{message.delivery}@{head.domain}>"),
            header("List-Unsubscribe", f"<mailto:{quote(head.from_email, safe='@')}?subject=unsubscribe>"),
            header("Auto-Submitted", "auto-generated"),
            header("X-Tocsin-Delivery", str(message.delivery)),
            header("X-Tocsin-Notification", str(message.notification)),
            header("X-Tocsin-Attempt", str(message.attempt)),
            header("Importance", importance) if importance else b"",
            header("MIME-Version", "1.0"),
            # Drawn, so that nobody can write it into a text.
            alternatives(f"=_{secrets.token_hex(16)}", text, html),
        )
    )


def subject_of(message: Message) -> str:
    """The title, or what the event's type says: "event.approval" becomes "Event approval"."""
    titled = one_line(message.title or "")
    if not titled:
        words = one_line(message.event_type.replace(".", " ").replace("_", " ").replace("-", " "))
        titled = (words[:1].upper() + words[1:]) or "Notification"
    return fit_characters(titled, _LONGEST_SUBJECT)


def _parts(message: Message, head: Letterhead, subject: str) -> tuple[str, str]:
    text = plain(message.text).strip()
    words = {
        "subject": subject,
        "text": text,
        "paragraphs": [block.split("\n") for block in re.split(r"\n{2,}", text)],
        "link": action_link(message.metadata, head.public_url),
        "brand": one_line(head.brand),
        "postal_address": one_line(head.postal_address or ""),
        "language": one_line(message.locale or "en")[:35].replace("_", "-"),
    }
    return _TEXT_PAGE.render(words), _HTML_PAGE.render(words)


def _shown(name: str) -> str:
    return fit_characters(one_line(name), _LONGEST_NAME)
