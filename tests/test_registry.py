from __future__ import annotations

import pytest

from autoquant.errors import BackendUnavailable
from autoquant.registry import Registry


class Hammer:
    name = "hammer"


class Saw:
    name = "saw"


TOOLS: Registry[Hammer | Saw] = Registry(
    kind="tool",
    entry_points="autoquant.tests.nobody",
    built_in=(Hammer, Saw),
    error=BackendUnavailable,
)


def test_what_is_built_in_is_found_by_name_in_its_order() -> None:
    assert list(TOOLS.all()) == ["hammer", "saw"]
    assert isinstance(TOOLS.get("saw"), Saw)


@pytest.mark.parametrize("name", ["hamer", "HAMMER"])
def test_an_unknown_name_brings_the_nearest(name: str) -> None:
    with pytest.raises(BackendUnavailable, match=rf"no tool '{name}'; did you mean hammer\?"):
        TOOLS.get(name)


def test_a_name_like_no_other_brings_the_known_ones() -> None:
    with pytest.raises(BackendUnavailable, match=r"like no known one\. Known tools: hammer, saw"):
        TOOLS.get("xyz")
