"""Logs: structured, with the correlation id in every line; JSON in production, readable in a terminal (O1).

Everything that logs through the standard library (uvicorn, Dramatiq, the SDKs) is passed on to loguru.
"""

import json
import logging
import sys
from typing import TYPE_CHECKING, Final

from loguru import logger

from tocsin.storage.calls import correlation

if TYPE_CHECKING:
    from loguru import Message, Record

_TEXT: Final = "<dim>{time:HH:mm:ss.SSS}</dim> <level>{level: <7}</level> <dim>{extra[cid]}</dim> {message}"

# What these say at INFO is said better by ours, or is noise.
_QUIETER: Final = {
    "uvicorn.access": logging.ERROR,
    "uvicorn.error": logging.WARNING,
    "dramatiq": logging.WARNING,
    "dramatiq.broker": logging.ERROR,
    "apscheduler": logging.ERROR,
    "twilio": logging.WARNING,
    "httpx": logging.WARNING,
    "mail.log": logging.ERROR,
}


class _ToLoguru(logging.Handler):
    """Passes a record of the standard library on, with the place it came from."""

    def emit(self, record: logging.LogRecord) -> None:
        level = (
            record.levelname
            if record.levelname in {"DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"}
            else record.levelno
        )
        logger.opt(depth=6, exception=record.exc_info).log(level, "{}: {}", record.name, record.getMessage())


def set_up(level: str, form: str) -> None:
    """Sends logs to standard error. `form`: text, json, or auto, which is text in a terminal."""
    logger.remove()
    logger.configure(patcher=_with_correlation)
    if form == "text" or (form == "auto" and sys.stderr.isatty()):
        logger.add(sys.stderr, level=level, format=_TEXT, backtrace=False, diagnose=False)
    else:
        logger.add(_write_json, level=level, format="{message}", backtrace=False, diagnose=False)
    logging.basicConfig(handlers=[_ToLoguru()], level=logging.INFO, force=True)
    for name, quiet in _QUIETER.items():
        logging.getLogger(name).setLevel(quiet)


def _with_correlation(record: "Record") -> None:
    record["extra"].setdefault("cid", correlation.get())


def _write_json(message: "Message") -> None:
    record = message.record
    line = {
        "time": record["time"].isoformat(timespec="milliseconds"),
        "level": record["level"].name,
        "cid": record["extra"]["cid"],
        "message": record["message"],
        "where": f"{record['name']}:{record['function']}:{record['line']}",
    }
    if record["exception"]:
        line["exception"] = repr(record["exception"].value)
        line["traceback"] = str(message).removeprefix(record["message"]).strip()
    sys.stderr.write(json.dumps(line, ensure_ascii=False) + "\n")
