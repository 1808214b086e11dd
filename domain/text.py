"""Text as channels can carry it: SMS segments exactly as carriers count them, and cuts that break no character.

GSM-7 holds 160 septets in one segment and 153 in each of several; a text with any other character goes out as UCS-2,
70 and 67 units. Neither an escape pair nor a surrogate pair is split between segments, so they are packed greedily.
"""

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from itertools import accumulate
from typing import Final

_GSM: Final = frozenset(
    "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿"
    "abcdefghijklmnopqrstuvwxyzäöñüà"
)
_GSM_ESCAPED: Final = frozenset("\f^{}\\[~]|€")

_LONE_SURROGATE: Final = re.compile("[\ud800-\udfff]")
_CONTROL: Final = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029]")
_SKIN_TONES: Final = range(0x1F3FB, 0x1F400)
_FLAG_LETTERS: Final = range(0x1F1E6, 0x1F200)
_TAGS: Final = range(0xE0020, 0xE0080)
_HANGUL_FOLLOWERS: Final = range(0x1160, 0x1200)
_JOINER: Final = "\u200d"
_VIRAMA_CLASS: Final = 9


class Encoding(StrEnum):
    """How an SMS is coded on the air."""

    GSM7 = "GSM-7"
    UCS2 = "UCS-2"


_CAPACITY: Final = {Encoding.GSM7: (160, 153), Encoding.UCS2: (70, 67)}
"""Units of the only segment, and of each of several."""


@dataclass(frozen=True, slots=True)
class FittedText:
    """A text as it goes out by SMS. `prefix_cost` is how many segments the prefix adds to the whole, uncut text."""

    text: str
    segments: int
    encoding: Encoding
    cut: bool
    prefix_cost: int


def plain(text: str) -> str:
    """`text` with one kind of line end, and without control characters or halves of surrogate pairs."""
    text = _LONE_SURROGATE.sub("\ufffd", text.replace("\r\n", "\n").replace("\r", "\n").replace("\t", " "))
    return _CONTROL.sub("", text)


def one_line(text: str) -> str:
    """`text` as it may stand in a header or a title: no line ends, no runs of blanks."""
    return " ".join(plain(text).split())


def encoding_of(text: str) -> Encoding:
    """The encoding that `text` needs."""
    return Encoding.GSM7 if all(char in _GSM or char in _GSM_ESCAPED for char in text) else Encoding.UCS2


def segments_of(text: str) -> int:
    """How many SMS segments `text` takes; an empty one takes one."""
    encoding = encoding_of(text)
    alone, each = _CAPACITY[encoding]
    units = [_units(char, encoding) for char in text]
    if sum(units) <= alone:
        return 1
    segments, room = 1, each
    for size in units:
        if size > room:
            segments, room = segments + 1, each
        room -= size
    return segments


@lru_cache(maxsize=64)
def fit_sms(text: str, max_segments: int, prefix: str = "") -> FittedText:
    """`prefix` and `text`, cut with an ellipsis where they would take more than `max_segments`. A prefix that leaves
    no room for any text is left out."""
    text = plain(text).strip()
    whole = prefix + text
    needed = segments_of(whole)
    cost = needed - segments_of(text)
    if needed <= max_segments:
        return FittedText(whole, needed, encoding_of(whole), cut=False, prefix_cost=cost)
    if prefix and segments_of(prefix + "…") > max_segments:
        return fit_sms(text, max_segments)
    cut = prefix + _longest_head(text, max_segments, prefix)
    return FittedText(cut, segments_of(cut), encoding_of(cut), cut=True, prefix_cost=cost)


def fit_characters(text: str, most: int) -> str:
    """`text` cut to `most` characters, the last of them an ellipsis where something is missing."""
    if len(text) <= most:
        return text
    head = ""
    for end in _ends(text[: most + 1]):
        if end > most - 1:
            break
        head = text[:end]
    # A first character of more combining marks than fit is cut for all that.
    return (head.rstrip() or text[: most - 1]) + "…"


def _longest_head(text: str, max_segments: int, prefix: str) -> str:
    """The longest beginning of `text` that fits with its ellipsis. More text never takes fewer segments, so it is
    found by halving."""
    text = text[: max_segments * _CAPACITY[Encoding.GSM7][0]]
    ends = [0, *_ends(text)]
    low, high = 0, len(ends) - 1
    while low < high:
        middle = (low + high + 1) // 2
        if segments_of(prefix + _with_ellipsis(text[: ends[middle]], prefix)) <= max_segments:
            low = middle
        else:
            high = middle - 1
    return _with_ellipsis(text[: ends[low]], prefix)


def _with_ellipsis(head: str, prefix: str) -> str:
    # GSM-7 has no "…": that one character would turn 160 into 70.
    return head.rstrip() + ("..." if encoding_of(prefix + head) is Encoding.GSM7 else "…")


def _units(char: str, encoding: Encoding) -> int:
    return 2 if (char in _GSM_ESCAPED if encoding is Encoding.GSM7 else char > "\uffff") else 1


def _ends(text: str) -> Iterator[int]:
    """Where each character, as people see it, ends. The rules of Unicode's annex 29 that matter to a cut: marks,
    joiners, skin tones, flags, Hangul and Indic conjuncts stay whole."""
    flags = accumulate(text, lambda run, char: run + 1 if ord(char) in _FLAG_LETTERS else 0, initial=0)
    for place, odd_flag in zip(range(1, len(text)), (run % 2 for run in list(flags)[1:]), strict=False):
        if not _joined(text[place - 1], text[place], odd_flag=bool(odd_flag)):
            yield place
    if text:
        yield len(text)


def _joined(before: str, after: str, *, odd_flag: bool) -> bool:
    code = ord(after)
    if _JOINER in (before, after) or code in _SKIN_TONES or code in _TAGS or code in _HANGUL_FOLLOWERS:
        return True
    if code in _FLAG_LETTERS:
        return odd_flag
    if unicodedata.category(after) in {"Mn", "Mc", "Me"}:
        return True
    return unicodedata.combining(before) == _VIRAMA_CLASS and unicodedata.category(after) == "Lo"
