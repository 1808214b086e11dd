"""Which message is whose (T7): exactly one or none, whatever the order, and never one that may be another's."""

from hypothesis import given
from hypothesis import strategies as st

from tocsin.domain.correlation import SLACK_MS, Attribution, Candidate, Confidence, Unattributed, Window, attribute

NOW = 1_795_000_000_000
times = st.integers(NOW - 4 * SLACK_MS, NOW + 4 * SLACK_MS)
windows = st.builds(lambda began, lasted: Window(began, began + lasted), times, st.integers(0, 2 * SLACK_MS))
candidates = st.lists(
    st.builds(Candidate, st.sampled_from([f"SM{n}" for n in range(6)]), times),
    max_size=6,
    unique_by=lambda c: c.provider_id,
)
taken = st.sets(st.sampled_from([f"SM{n}" for n in range(6)]))


@given(window=windows, found=candidates, taken=taken, rivals=st.lists(windows, max_size=3))
def test_one_is_taken_where_it_alone_fits_and_fits_nobody_else(
    window: Window, found: list[Candidate], taken: set[str], rivals: list[Window]
) -> None:
    first, last = window.began_ms - SLACK_MS, window.ended_ms + SLACK_MS
    free = [each for each in found if each.provider_id not in taken and first <= each.at_ms <= last]
    contested = any(r.began_ms - SLACK_MS <= each.at_ms <= r.ended_ms + SLACK_MS for r in rivals for each in free)
    answer = attribute(window, found, taken=taken, rivals=rivals)
    if not free:
        assert answer is Unattributed.NONE
    elif len(free) > 1 or contested:
        assert answer is Unattributed.TIE
    else:
        assert isinstance(answer, Attribution)
        assert answer.candidate == free[0]
        assert answer.difference_ms == free[0].at_ms - window.began_ms


@given(window=windows, found=candidates, taken=taken, rivals=st.lists(windows, max_size=3), data=st.data())
def test_neither_order_nor_doubling_decides(
    window: Window, found: list[Candidate], taken: set[str], rivals: list[Window], data: st.DataObject
) -> None:
    shuffled = data.draw(st.permutations(found + found[:2]))
    assert attribute(window, shuffled, taken=taken, rivals=rivals[::-1]) == attribute(
        window, found, taken=taken, rivals=rivals
    )


@given(window=windows, at=st.tuples(times, times))
def test_of_two_in_doubt_that_said_the_same_at_most_one_gets_a_message(window: Window, at: tuple[int, int]) -> None:
    other = Window(at[0], at[0] + 1_000)
    message = [Candidate("SM1", at[1])]
    mine = attribute(window, message, taken=(), rivals=[other])
    others = attribute(other, message, taken=(), rivals=[window])
    assert not (isinstance(mine, Attribution) and isinstance(others, Attribution))


@given(began=times, difference=st.integers(-SLACK_MS, 2 * SLACK_MS))
def test_the_nearer_in_time_the_surer_and_what_was_there_before_is_hardly_ours(began: int, difference: int) -> None:
    window = Window(began, began + 2 * SLACK_MS)
    answer = attribute(window, [Candidate("SM1", began + difference)], taken=(), rivals=())
    assert isinstance(answer, Attribution)
    high = Confidence.HIGH if abs(difference) <= 5_000 else None
    assert answer.confidence is (high or (Confidence.MEDIUM if 0 < difference <= 60_000 else Confidence.LOW))
