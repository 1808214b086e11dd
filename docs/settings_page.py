"""Writes docs/settings.md from settings.toml, whose comments are the documentation: `make docs` runs it, and
tests/test_settings.py sees that the page is up to date."""

import re
import tomllib
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

_BEGINNING = """# Settings

Made from [settings.toml](../settings.toml) by `make docs`; change that, not this.

A setting is taken from the first of these that gives it:

1. the environment variable `TOCSIN_<SECTION>__<KEY>`, nested tables with `__` again: `TOCSIN_HTTP__PORT=9000`,
   `TOCSIN_SMS__TWILIO__FROM_NUMBER=+14155550100`, `TOCSIN_TYPES__EVENT_APPROVAL__PRIORITY=LOW`; a list is written as
   JSON: `TOCSIN_POLICIES__NIGHT='[{"channel": "EMAIL", "after": "0s"}]'`;
2. a name that operators know from elsewhere, such as `REDIS_URL` (last column);
3. a TOML file of your own that holds only what differs: `TOCSIN_SETTINGS=/etc/tocsin.toml`;
4. `settings.toml`.

- `""` stands for *not set*. Durations are written `250ms`, `30s`, `10m`, `1h`, `7d`; sizes `16KB`, `600MB`, `2GB`.
- **Secrets from files.** Any variable with `_FILE` after its name names a file that holds the value:
  `SMTP_PASS_FILE=/run/secrets/smtp`.
- **Private keys** may hold literal `\\n` instead of line ends.
- **An unknown or wrong setting stops the start**, with its name, where it was given, and the mend. That includes every
  variable that begins with `TOCSIN_`, except those that Kubernetes makes for a service called `tocsin`.
- **Two variables that set the same to different values** (`DATABASE_URL` and `DELIVERY_STATUS_DATABASE_URL`,
  `SENDER_EMAIL` and `SEND_FROM_EMAIL`) stop the start too. An empty variable of these known names counts as not set.
- `WS_PORT` stops the start: pages, API and realtime share `http.port`.
- `SENTRY_DSN` does nothing in this version. It is often set for every program of a machine, so it does not stop the
  start; a line at start says that nothing is reported.
- **Event types** have one spelling: `EVENT_APPROVAL` is `event.approval` (lower case, the first `_` a dot). What a type
  leaves out is taken from `types.default`.
- `TOCSIN_URL` and `TOCSIN_KEY` are no settings of the service: they tell the commands that speak to one (`tocsin send`,
  `status`, `demo`, …) where it is and what key to show.
"""

_TITLE = re.compile(r"\[([^\]]+)\]$")
_KEY = re.compile(r"([A-Za-z_]+) *= *(.*)$")


@dataclass(frozen=True)
class Documented:
    """One setting: its path, its default as it is written, what its comment says, and the names in that's bracket."""

    path: str
    default: str
    comment: str
    names: str

    @property
    def variable(self) -> str:
        """Its environment variable."""
        path = re.sub(r'"([^"]+)"', lambda found: found[1].replace(".", "_"), self.path)
        return f"TOCSIN_{path.upper().replace('.', '__')}"


def documented(text: str) -> list[Documented]:
    """The settings of a settings.toml in their order; one without a comment right above it has an empty one."""
    section, comment, found = "", [], []
    for line in text.splitlines():
        if line.startswith("#"):
            comment.append(line.removeprefix("#").strip())
            continue
        if title := _TITLE.match(line):
            section = title[1]
        elif key := _KEY.match(line):
            found.append(Documented(f"{section}.{key[1]}", _default(text, section, key), *_parts(" ".join(comment))))
        comment = []
    return found


def page(text: str) -> str:
    """The page that documents a settings.toml."""
    lines = [_BEGINNING]
    section = ""
    for setting in documented(text):
        here = setting.path.rpartition(".")[0] if '"' not in setting.path else setting.path.rpartition('"')[0] + '"'
        if here != section:
            section = here
            lines += ["", f"## {section}", "", "| setting | default | what | variables |", "|---|---|---|---|"]
        variables = " ".join(f"`{name}`" for name in [setting.variable, *re.findall(r"[A-Z_]{5,}", setting.names)])
        remark = " (in plain seconds)" if "seconds" in setting.names else ""
        lines.append(f"| `{setting.path}` | `{setting.default}` | {setting.comment} | {variables}{remark} |")
    return "\n".join(lines) + "\n"


def _parts(comment: str) -> tuple[str, str]:
    """What a comment says, and the names in the bracket at its end."""
    said, bracket, names = comment.rpartition(" [")
    return (said, names[:-1]) if bracket and names.endswith("]") else (comment, "")


def _default(text: str, section: str, key: re.Match[str]) -> str:
    if key[2] != "[":
        return key[2]
    table = tomllib.loads(text)
    for name in section.split("."):
        table = table[name]
    return "; ".join(" ".join(map(str, entry.values())) for entry in table[key[1]])


if __name__ == "__main__":
    (ROOT / "docs" / "settings.md").write_text(page((ROOT / "settings.toml").read_text()))
