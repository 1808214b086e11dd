"""SMS segments as carriers count them, and cuts that break nothing."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tocsin.domain.text import Encoding, encoding_of, fit_characters, fit_sms, one_line, plain, segments_of

PARTY = "🎉"
FAMILY = "👨‍👩‍👧‍👦"
FLAG = "🇮🇳"
HINDI = "क्षेत्र में बैठक"

texts = st.text(max_size=400)
gsm_texts = st.text(alphabet="abc €{}[]~|^\\äöüñ@£\n", max_size=700)


@pytest.mark.parametrize(
    ("text", "segments"),
    [
        (PARTY + "a" * 160, 3),
        (PARTY + "a" * 68, 1),
        (PARTY + "a" * 69, 2),
        (PARTY + "a" * 132, 2),
        (PARTY + "a" * 199, 3),
        ("a" * 66 + PARTY + "a" * 66, 3),
        ("a" * 152 + "€" + "a" * 152, 3),
        ("a" * 159 + "€", 2),
        ("a" * 160, 1),
        ("a" * 161, 2),
        ("a" * 306, 2),
        ("a" * 307, 3),
        ("а" * 70, 1),  # Cyrillic, so UCS-2
        ("а" * 71, 2),
        ("а" * 134, 2),
        ("а" * 135, 3),
        ("€" * 80, 1),
        ("€" * 81, 2),
        ("", 1),
    ],
)
def test_segments_are_counted_as_carriers_count_them(text: str, segments: int) -> None:
    assert segments_of(text) == segments


@pytest.mark.parametrize("char", list("^{}\\[~]|€\f"))
def test_the_escaped_characters_of_gsm_cost_two(char: str) -> None:
    assert encoding_of(char) is Encoding.GSM7
    assert (segments_of("a" * 158 + char), segments_of("a" * 159 + char)) == (1, 2)


@pytest.mark.parametrize("char", ["ç", "’", "–", "`", "\t", "आ", PARTY])
def test_a_character_beyond_gsm_makes_the_whole_text_ucs2(char: str) -> None:
    assert encoding_of("a" * 100 + char) is Encoding.UCS2
    assert segments_of("a" * 100 + char) == 2


def test_a_text_that_fits_is_left_as_it_is() -> None:
    fitted = fit_sms("a" * 160, 1)
    assert (fitted.text, fitted.segments, fitted.encoding, fitted.cut) == ("a" * 160, 1, Encoding.GSM7, False)


def test_a_text_over_160_is_cut_within_gsm() -> None:
    fitted = fit_sms("a" * 161, 1)
    assert fitted.text == "a" * 157 + "..."
    assert (fitted.segments, fitted.encoding, fitted.cut) == (1, Encoding.GSM7, True)


def test_a_text_that_loses_its_only_emoji_becomes_gsm_again() -> None:
    fitted = fit_sms("a" * 200 + PARTY, 1)
    assert (fitted.text, fitted.encoding) == ("a" * 157 + "...", Encoding.GSM7)


def test_a_ucs2_text_is_cut_with_one_character_of_ellipsis() -> None:
    fitted = fit_sms("я" * 200, 1)
    assert (fitted.text, fitted.segments) == ("я" * 69 + "…", 1)


def test_the_cost_of_a_prefix_is_told() -> None:
    fitted = fit_sms("a" * 160, 3, PARTY)
    assert (fitted.text, fitted.segments, fitted.prefix_cost, fitted.cut) == (PARTY + "a" * 160, 3, 2, False)
    assert fit_sms("a" * 68, 1, PARTY).prefix_cost == 0
    short = fit_sms("a" * 160, 1, PARTY)
    assert (short.text, short.segments, short.prefix_cost, short.cut) == (PARTY + "a" * 67 + "…", 1, 2, True)


def test_a_prefix_that_leaves_no_room_is_left_out() -> None:
    assert fit_sms("hello", 1, "я" * 200).text == "hello"


@pytest.mark.parametrize("whole", [FAMILY, FLAG, "👍🏽", "é", "❤️", "1️⃣", "각", "🏴󠁧󠁢󠁥󠁮󠁧󠁿"])
def test_what_people_see_as_one_character_is_not_cut(whole: str) -> None:
    for room in range(2, 30):
        cut = fit_characters(whole * 20, room).removesuffix("…")
        assert cut == whole * (len(cut) // len(whole)) or len(whole) > room - 1


def test_an_indic_conjunct_is_not_cut() -> None:
    cuts = {fit_characters(HINDI, room).removesuffix("…").rstrip() for room in range(5, len(HINDI))}
    assert cuts == {"क्षे", "क्षेत्र", "क्षेत्र में", "क्षेत्र में बै"}


def test_flags_are_cut_between_pairs() -> None:
    assert fit_characters(FLAG * 10, 10) == FLAG * 4 + "…"
    assert fit_characters("a" + FLAG * 10, 10) == "a" + FLAG * 4 + "…"


def test_a_first_character_with_too_many_marks_is_cut_for_all_that() -> None:
    assert len(fit_characters("a" + "\u0301" * 300, 150)) == 150


def test_push_text_is_cut_to_150_characters() -> None:
    assert fit_characters("a" * 150, 150) == "a" * 150
    assert fit_characters("a" * 151, 150) == "a" * 149 + "…"


def test_controls_and_halves_of_surrogates_are_taken_out() -> None:
    assert plain("a\r\nb\rc\x00\x07d\ud800e\x85\u2028") == "a\nb\ncd\ufffde"
    assert one_line("a\r\nBcc: b\x00\n\n c") == "a Bcc: b c"


@given(texts, st.integers(1, 10), st.sampled_from(["", PARTY, "! ", "🚨 "]))
def test_a_fitted_text_never_takes_more_segments_than_allowed(text: str, most: int, prefix: str) -> None:
    fitted = fit_sms(text, most, prefix)
    assert fitted.segments == segments_of(fitted.text) <= most
    assert fitted.encoding is encoding_of(fitted.text)
    assert fitted.cut or fitted.text == prefix + plain(text).strip()


@given(st.one_of(texts, gsm_texts), st.integers(1, 4))
def test_a_cut_takes_as_much_as_fits(text: str, most: int) -> None:
    fitted = fit_sms(text, most)
    if not fitted.cut:
        return
    head = fitted.text.removesuffix("..." if fitted.encoding is Encoding.GSM7 else "…")
    said = plain(text).strip()
    assert said.startswith(head)
    # One more character as people see it, and it would be too long: they are never longer than what is left here.
    more = said[: len(head) + 60]
    assert segments_of(more + "…") > most or len(more) < len(head) + 60


@given(st.text(max_size=600), st.text(max_size=20))
def test_more_text_never_takes_fewer_segments(text: str, more: str) -> None:
    assert segments_of(text) <= segments_of(text + more)


@given(gsm_texts)
def test_gsm_segments_hold_what_they_can(text: str) -> None:
    septets = sum(2 if char in "^{}\\[~]|€\f" else 1 for char in text)
    if septets <= 160:
        assert segments_of(text) == 1
    else:
        # An escape pair that is not split leaves at most one septet empty in each segment.
        assert -(-septets // 153) <= segments_of(text) <= -(-septets // 152)


@given(texts)
def test_ucs2_segments_hold_what_they_can(text: str) -> None:
    text = "я" + text.replace("\ud800", "")
    units = len(text.encode("utf-16-le")) // 2
    assert (segments_of(text) == 1) == (units <= 70)
    if units > 70:
        assert -(-units // 67) <= segments_of(text) <= -(-units // 66)


@given(st.text(max_size=400), st.integers(1, 200))
def test_a_text_fits_into_its_characters(text: str, most: int) -> None:
    cut = fit_characters(text, most)
    assert len(cut) <= most
    assert cut == text or cut.endswith("…")


@given(st.text())
def test_plain_text_can_be_sent_anywhere(text: str) -> None:
    made = plain(text)
    assert made == plain(made)
    made.encode()
    assert not any(ord(char) < 32 and char != "\n" for char in made)
