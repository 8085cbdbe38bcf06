from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from autoquant.planner.report.labels import Label, place_labels

ROOM = (0.0, 400.0)
POINTS = st.tuples(st.sampled_from(["chosen", "unquantized"]), st.floats(0, 400), st.floats(0, 300))


def box(label: Label) -> tuple[float, float]:
    width = 9.0 * len(label.text)
    return (label.x, label.x + width) if label.side == "start" else (label.x - width, label.x)


@given(st.lists(POINTS, max_size=4))
def test_labels_stay_inside_and_apart(wanted: list[tuple[str, float, float]]) -> None:
    labels = [label for label in place_labels(wanted, *ROOM) if label is not None]
    for at, label in enumerate(labels):
        start, end = box(label)
        assert 0 <= start < end <= 400
        for other in labels[:at]:
            other_start, other_end = box(other)
            apart = end <= other_start or other_end <= start
            assert apart or abs(label.y - other.y) >= 17


def test_the_first_is_always_named_and_the_second_moves_or_goes() -> None:
    first, second = place_labels([("chosen", 100, 100), ("unquantized", 105, 100)], *ROOM)
    assert first is not None
    assert first.side == "start"
    assert second is None or second.side == "end"


def test_a_label_does_not_cross_the_budget_if_it_can_help_it() -> None:
    (label,) = place_labels([("chosen", 200, 100)], *ROOM, line=220.0)
    assert label is not None
    assert label.side == "end"
    (label,) = place_labels([("chosen", 20, 100)], *ROOM, line=40.0)
    assert label is not None
    assert label.side == "start"
