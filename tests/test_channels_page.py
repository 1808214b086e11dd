"""docs/channels.md says what the code does."""

import re
from pathlib import Path

import pytest

from tocsin.channels.sandbox import fcm, smtp
from tocsin.channels.sandbox import twilio as sandbox_twilio
from tocsin.channels.twilio import CODES, receipt
from tocsin.domain.text import segments_of

PAGE = (Path(__file__).resolve().parent.parent / "docs" / "channels.md").read_text(encoding="utf-8")
ROWS = [[cell.strip() for cell in line.strip("|").split("|")] for line in PAGE.splitlines() if line.startswith("|")]


def outcomes_by_code() -> dict[str, str]:
    return {code: row[1] for row in ROWS for code in row[0].split() if re.fullmatch(r"\d{5}", code)}


@pytest.mark.parametrize("code", sorted(CODES))
def test_every_code_stands_there_with_its_meaning(code: int) -> None:
    assert outcomes_by_code()[str(code)] == f"{CODES[code].kind}, `{CODES[code].reason}`"


def test_no_code_stands_there_that_has_no_meaning() -> None:
    assert set(outcomes_by_code()) == {str(code) for code in CODES}


def test_every_word_of_a_receipt_stands_there_with_its_status() -> None:
    (start,) = [number for number, row in enumerate(ROWS) if row[0] == "Twilio's word in a receipt"]
    rows = ROWS[start + 2 : start + 5]
    written = {word: re.split(r"[:,]", status)[0] for words, status in rows for word in words.split(", ")}
    assert set(written.values()) == {"SENT", "DELIVERED", "BOUNCED"}
    assert {word: receipt({"MessageStatus": word}).status for word in written} == written


def test_every_segment_count_is_right() -> None:
    (start,) = [number for number, row in enumerate(ROWS) if row == ["text", "segments"]]
    counted = 0
    for text, segments in ROWS[start + 2 :]:
        if not segments.isdigit():
            break
        written = re.sub(r"(\d+) letters", lambda found: "a" * int(found[1]), text)
        assert segments_of(re.sub(r"(, | and )", "", written)) == int(segments), text
        counted += 1
    assert counted >= 9


def test_every_address_that_asks_for_trouble_stands_there() -> None:
    mail = [f"`{name}@…`" for name in (*smtp._REFUSALS, "drop")]
    numbers = [*sandbox_twilio._REFUSALS, sandbox_twilio._TAKES_NOTHING, sandbox_twilio._TAKES_AND_HANGS_UP]
    tokens = [f"token `{beginning}…`" for beginning in (*fcm._REFUSALS, "drop-")]
    told = {row[0] for row in ROWS}
    assert told >= {*mail, *numbers, sandbox_twilio._UNDELIVERED, *tokens}
