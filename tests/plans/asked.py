"""Everything that the program asks Postgres, collected by running each function of storage/ that speaks SQL."""

import ast
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, Final

import psycopg2.extensions
from psycopg2.extensions import TRANSACTION_STATUS_IDLE

from tocsin.storage import persist

STORAGE: Final = Path(persist.__file__).parent
_WORDS: Final = ("select", "insert", "update", "delete", "with")
_MODELS: Final = {"Event", "Notification", "Delivery", "User", "Device", "Preferences", "ApiKey", "AuditEntry"}

NOT_ASKED_OFTEN: Final = {"dropping", "migrate", "partitions", "postgres", "postgres_check", "embedded_postgres"}
"""Modules whose statements run at a start, once an hour, for the doctor or by a command."""


@dataclass(frozen=True, slots=True)
class Statement:
    """A statement with its values in their places, the functions of storage/ that it came from, the innermost first,
    and what was set for the transaction that it was in."""

    text: str
    functions: tuple[str, ...]
    settings: tuple[str, ...]


@dataclass(slots=True)
class Asked:
    """What was asked on a connection."""

    statements: list[Statement] = field(default_factory=list)
    functions: set[str] = field(default_factory=set)
    """All functions of storage/ that were called, as "module.function"."""


@contextmanager
def recording(connection: Any) -> Iterator[Asked]:
    """Keeps what is asked on a connection that this thread was lent."""
    asked = Asked()
    settings: list[str] = []

    class Recording(psycopg2.extensions.cursor):
        def execute(self, statement: Any, values: Any = None) -> None:
            text = self.mogrify(statement, values).decode().strip()
            if self.connection.get_transaction_status() == TRANSACTION_STATUS_IDLE:
                settings.clear()
            if text.lower().startswith("set local"):
                settings.append(text)
            functions = tuple(_functions_of_storage())
            if text.lower().startswith(_WORDS) and functions:
                asked.statements.append(Statement(text, functions, tuple(settings)))
            super().execute(statement, values)

    def called(frame: FrameType, event: str, _: object) -> None:
        if event == "call" and (name := _function_of_storage(frame)):
            asked.functions.add(name)

    before = connection.cursor_factory
    connection.cursor_factory = Recording
    sys.setprofile(called)
    try:
        yield asked
    finally:
        sys.setprofile(None)
        connection.cursor_factory = before


def functions_that_ask() -> set[str]:
    """The functions of storage/ in whose text a statement is run, as "module.function"."""
    found = set()
    for path in sorted(STORAGE.glob("*.py")):
        if path.stem in NOT_ASKED_OFTEN:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and any(map(_asks, ast.walk(node))):
                found.add(f"{path.stem}.{node.name}")
    return found


def _asks(node: ast.AST) -> bool:
    if not isinstance(node, ast.Call):
        return False
    name = ast.unparse(node.func)
    owner, _, verb = name.rpartition(".")
    of_model = owner.rpartition(".")[2] in _MODELS and verb in {"select", "insert", "update", "delete", "get_or_none"}
    return of_model or name in {"query.execute", "execute_values"}


def _functions_of_storage() -> Iterator[str]:
    frame: FrameType | None = sys._getframe(2)
    while frame is not None:
        if name := _function_of_storage(frame):
            yield name
        frame = frame.f_back


def _function_of_storage(frame: FrameType) -> str | None:
    folder, _, file = frame.f_code.co_filename.rpartition("/")
    if folder != str(STORAGE) or file == "database.py":
        return None
    return f"{file.removesuffix('.py')}.{frame.f_code.co_name}"
