"""Where settings come from: settings.toml, a file of the operator's own, the environment; and how a wrong one is told.

Used by settings.py alone. A tree is what TOML gives: tables in tables. Beside it stands the origin of each value that
did not come from settings.toml, so that a complaint can name the place to mend.
"""

import difflib
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from tocsin.domain.errors import SettingError

Keys = tuple[str, ...]
Tree = dict[str, Any]

PREFIX: Final = "TOCSIN_"

KNOWN_NAMES: Final[Mapping[str, str]] = {
    "REDIS_URL": "redis.url",
    "DATABASE_URL": "postgres.url",
    "DELIVERY_STATUS_DATABASE_URL": "postgres.url",
    "SMTP_HOST": "email.smtp.host",
    "SMTP_PORT": "email.smtp.port",
    "SMTP_USER": "email.smtp.username",
    "SMTP_PASS": "email.smtp.password",
    "SENDER_EMAIL": "email.smtp.from_email",
    "SEND_FROM_EMAIL": "email.smtp.from_email",
    "FIREBASE_PROJECT_ID": "push.fcm.project_id",
    "FIREBASE_PRIVATE_KEY": "push.fcm.private_key",
    "FIREBASE_CLIENT_EMAIL": "push.fcm.client_email",
    "TWILIO_ACCOUNT_SID": "sms.twilio.account_sid",
    "TWILIO_AUTH_TOKEN": "sms.twilio.auth_token",
    "TWILIO_PHONE_NUMBER": "sms.twilio.from_number",
    "NOTIFICATION_CACHE": "cache.enabled",
    "NOTIFICATION_CACHE_TTL_SECONDS": "cache.ttl",
    "TOCSIN_ADMIN_KEY": "auth.admin_key",
}
"""The names that operators know, and what they set."""

_SENTRY_NOTICE: Final = (
    "SENTRY_DSN has no effect: this version reports nothing to Sentry. Unset it to be rid of this line."
)
_WS_PORT_MEND: Final = "WS_PORT: use http.port (TOCSIN_HTTP__PORT); realtime, API and pages share one port"

# Kubernetes gives every container variables for each service; those of a service called "tocsin" begin as ours do.
# TOCSIN_PORT is one of them only if it holds an address; a mere number was meant for us.
_OF_KUBERNETES: Final = re.compile(r"TOCSIN_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_(TCP|UDP|SCTP)(_\w+)?)?)")

# What the command line reads for itself: where the server is that it speaks to, and the key it shows.
_NOT_SETTINGS: Final = frozenset({"TOCSIN_SETTINGS", "TOCSIN_URL", "TOCSIN_KEY"})


@dataclass(frozen=True)
class Sources:
    """What was read: the merged tree, the origin by dotted path, and what the operator should be told."""

    tree: Tree
    origins: Mapping[str, str] = field(default_factory=dict)
    notices: tuple[str, ...] = ()

    def over(self, keys: Keys, value: Any, origin: str) -> "Sources":
        """These with one value or table more, given at `origin`."""
        addition: Any = value
        for key in reversed(keys):
            addition = {key: addition}
        origins = {".".join(keys + leaf): origin for leaf in _leaves(value)}
        return replace(self, tree=_merged(self.tree, addition), origins={**self.origins, **origins})

    def with_values(self, changes: Mapping[str, Any]) -> "Sources":
        """These with values by dotted path."""
        changed = self
        for path, value in changes.items():
            changed = changed.over(tuple(path.split(".")), value, "the program")
        return changed


def names_a_file(name: str) -> bool:
    """Whether the variable names a file that holds a value, and is not of a setting whose own name ends so."""
    return name.endswith("_FILE") and name not in _settings_of_files()


@cache
def _settings_of_files() -> frozenset[str]:
    ending = (keys for keys in _leaves(_shipped()) if keys[-1].endswith("_file"))
    return frozenset(PREFIX + "__".join(keys).upper() for keys in ending)


def _shipped() -> Tree:
    return tomllib.loads(resources.files("tocsin").joinpath("settings.toml").read_text("utf-8"))


def normal_type(name: str) -> str:
    """The one spelling of an event type: EVENT_APPROVAL and event.approval are the same."""
    lowered = name.lower()
    return lowered if "." in lowered else lowered.replace("_", ".", 1)


def read_sources(environ: Mapping[str, str], path: Path | None) -> Sources:
    """Everything that is set. Raises SettingError where something cannot be read or has no place."""
    sources = Sources(_with_normal_types(_shipped()))
    own = path or (Path(environ["TOCSIN_SETTINGS"]) if environ.get("TOCSIN_SETTINGS") else None)
    if own is not None:
        for key, value in _with_normal_types(_read_toml(own)).items():
            sources = sources.over((key,), value, str(own))
    known = tuple(".".join(keys) for keys in _leaves(sources.tree))
    for name, (keys, value) in _from_environment(environ, sources.tree, known).items():
        sources = sources.over(keys, value, name)
    notices = (_SENTRY_NOTICE,) if environ.get("SENTRY_DSN") else ()
    return replace(_with_type_defaults(sources), notices=notices)


def explain(error: ValidationError, sources: Sources, prefix: Keys = ()) -> SettingError:
    """What pydantic found, in one line each: the setting's name, where it was given, the mend. Shows no value."""
    known = [".".join(keys) for keys in _leaves(sources.tree)]
    lines = []
    for found in error.errors(include_url=False, include_context=False, include_input=False):
        path = ".".join(str(key) for key in (*prefix, *found["loc"]) if key != "[key]")
        if found["type"] == "extra_forbidden":
            path = _given_in(path, sources.origins)
        origin = _origin(path, sources.origins)
        name = f"{path} ({origin})" if origin else path
        if found["type"] == "extra_forbidden" or (found["type"] == "dict_type" and path not in _tables(sources.tree)):
            others = [each for each in known if each != path]
            lines.append(f"{name}: there is no such setting{_did_you_mean(path, others, origin)}")
        elif found["type"] == "missing":
            lines.append(f"{name}: it is missing; settings.toml shows what it may be")
        else:
            lines.append(f"{name}: {found['msg'].removeprefix('Value error, ').removeprefix('Input ')}")
    return SettingError("\n".join(dict.fromkeys(lines)))


def _from_environment(environ: Mapping[str, str], tree: Tree, known: tuple[str, ...]) -> dict[str, tuple[Keys, str]]:
    """What the environment sets, by the variable's name; the names that operators know first, ours over them."""
    if environ.get("WS_PORT"):
        raise SettingError(_WS_PORT_MEND)
    found: dict[str, tuple[Keys, str]] = {}
    for name, path in KNOWN_NAMES.items():
        value = _value_of(name, environ)
        if value:
            _refuse_contradiction(name, path, value, found)
            found[name] = tuple(path.split(".")), _plain_seconds(name, value)
    for name in sorted(environ):
        if name.startswith(PREFIX) and not _is_answered_elsewhere(name, environ[name]):
            base = name.removesuffix("_FILE") if names_a_file(name) else name
            keys = _keys_of(base, tree, known)
            value = _value_of(base, environ)
            assert value is not None  # noqa: S101  # `name` is in environ
            found[base] = keys, value
    return {name: (keys, _with_line_ends(value)) for name, (keys, value) in found.items()}


def _is_answered_elsewhere(name: str, value: str) -> bool:
    base = name.removesuffix("_FILE")
    of_kubernetes = _OF_KUBERNETES.fullmatch(name) and (name != "TOCSIN_PORT" or "://" in value)
    return base in KNOWN_NAMES or name in _NOT_SETTINGS or bool(of_kubernetes)


def _keys_of(name: str, tree: Tree, known: tuple[str, ...]) -> Keys:
    """The path that TOCSIN_<SECTION>__<KEY> names; upper and lower case are one. Raises SettingError."""
    words = name.removeprefix(PREFIX).split("__")
    if len(words) < 2 or not all(words):
        path = name.removeprefix(PREFIX).lower()
        raise SettingError(f"{name}: there is no such setting{_did_you_mean(path, known, name)}")
    if words[0] == "TYPES":
        words[1] = normal_type(words[1])
    keys: Keys = ()
    here: Any = tree
    for word in words:
        names = {each.lower(): each for each in here} if isinstance(here, dict) else {}
        keys += (names.get(word.lower(), word.lower()),)
        here = here.get(keys[-1]) if isinstance(here, dict) else None
    return keys


def _value_of(name: str, environ: Mapping[str, str]) -> str | None:
    """The variable's value, or what is in the file that <NAME>_FILE names. Raises SettingError."""
    file = environ.get(f"{name}_FILE")
    if not file:
        return environ.get(name)
    if environ.get(name):
        raise SettingError(f"{name}: it is set, and {name}_FILE too; keep one of the two")
    try:
        return Path(file).read_text("utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingError(
            f"{name}_FILE: the file cannot be read ({type(error).__name__}); name one that can"
        ) from error


def _refuse_contradiction(name: str, path: str, value: str, found: Mapping[str, tuple[Keys, str]]) -> None:
    for other, (keys, earlier) in found.items():
        if ".".join(keys) == path and earlier != value:
            raise SettingError(f"{name}: {other} sets the same ({path}) to something else; keep one of the two")


def _plain_seconds(name: str, value: str) -> str:
    if not name.endswith("_SECONDS"):
        return value
    if not value.strip().isdecimal():
        raise SettingError(f"{name}: write a whole number of seconds, such as 604800")
    return f"{value.strip()}s"


def _with_line_ends(value: str) -> str:
    # Environment files cannot hold a line's end, so keys are pasted into them with \n written out.
    return value.replace("\\n", "\n") if "-----BEGIN" in value else value


def _read_toml(path: Path) -> Tree:
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise SettingError(f"{path}: the settings file cannot be read ({type(error).__name__})") from error
    except tomllib.TOMLDecodeError as error:
        raise SettingError(f"{path}: it is not TOML: {error}") from error


def _with_normal_types(tree: Tree) -> Tree:
    types = tree.get("types")
    return (
        {**tree, "types": {normal_type(name): table for name, table in types.items()}}
        if isinstance(types, dict)
        else tree
    )


def _with_type_defaults(sources: Sources) -> Sources:
    """What a type leaves out is taken from types.default."""
    types = sources.tree["types"]
    default = types["default"]
    filled = {name: {**default, **table} if isinstance(table, dict) else table for name, table in types.items()}
    return replace(sources, tree={**sources.tree, "types": filled})


def _merged(low: Tree, high: Tree) -> Tree:
    merged = dict(low)
    for key, value in high.items():
        beneath = merged.get(key)
        merged[key] = _merged(beneath, value) if isinstance(beneath, dict) and isinstance(value, dict) else value
    return merged


def _leaves(value: Any, keys: Keys = ()) -> Iterator[Keys]:
    if not isinstance(value, dict):
        yield keys
        return
    for key, inner in value.items():
        yield from _leaves(inner, (*keys, key))


def _tables(tree: Tree, path: str = "") -> Iterator[str]:
    for key, inner in tree.items():
        if isinstance(inner, dict):
            yield path + key
            yield from _tables(inner, f"{path}{key}.")


def _origin(path: str, origins: Mapping[str, str]) -> str | None:
    """Where `path`, or what it lies in, was given; None: by settings.toml, where nobody need look."""
    while path and path not in origins:
        path = path.rpartition(".")[0]
    return origins.get(path)


def _given_in(path: str, origins: Mapping[str, str]) -> str:
    """What was given in the table `path`: of a table that does not exist, that is what its giver wrote."""
    return next((each for each in origins if each.startswith(f"{path}.")), path)


def _did_you_mean(path: str, known: list[str] | tuple[str, ...], origin: str | None) -> str:
    by_name: Callable[[str], str] = lambda each: each.replace("_", ".").replace("..", ".")  # noqa: E731
    names = [by_name(each) for each in known]
    # A key without its section, such as TOCSIN_PORT, is most likely that of the shortest name.
    close = sorted((name for name in names if name.endswith(f".{by_name(path)}")), key=len)
    close = close or difflib.get_close_matches(by_name(path), names, n=1, cutoff=0.7)
    if not close:
        return "; settings.toml lists them all"
    meant = next(each for each in known if by_name(each) == close[0])
    if origin and origin.startswith(PREFIX):
        return f"; did you mean {PREFIX}{meant.upper().replace('.', '__')}?"
    return f"; did you mean {meant}?"
