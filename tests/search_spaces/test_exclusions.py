from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoquant.errors import InputError
from autoquant.search_spaces.exclusions import covers, require_known, without_excluded

names = st.sampled_from(["blocks", "single_blocks", "1", "10", "attn", "to_q", "proj_out"])
paths = st.lists(names, min_size=1, max_size=4).map(".".join)


@given(paths, paths)
def test_a_path_covers_itself_and_everything_below(exclusion, path):
    parts, wanted = path.split("."), exclusion.split(".")
    assert covers(exclusion, path) == (parts[: len(wanted)] == wanted)


@given(st.lists(paths, unique=True), st.lists(paths))
def test_what_is_left_is_what_no_exclusion_covers(candidates, exclusions):
    left = without_excluded(candidates, exclusions)
    assert list(left) == [
        path for path in candidates if not any(covers(exclusion, path) for exclusion in exclusions)
    ]


@given(st.lists(paths, unique=True, min_size=1), paths)
def test_only_known_paths_may_be_excluded(known, exclusion):
    if exclusion in known:
        require_known([exclusion], known)
    else:
        with pytest.raises(InputError):
            require_known([exclusion], known)


def test_an_unknown_path_gets_the_closest_known_ones():
    with pytest.raises(InputError, match=r"'blocks\.0\.to_p'.*closest: blocks\.0\.to_q"):
        require_known(["blocks.0.to_p"], ["blocks.0.to_q", "proj_out"])
