from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoquant.errors import InputError
from autoquant.planner.workload import Sample, Workload, WorkloadRequest, read_prompts


def test_every_prompt_is_drawn_with_every_seed_in_batches() -> None:
    workload = Workload(
        prompts=("a", "b"), seeds=(0, 1), height=64, width=64, steps=4, batch_size=3
    )
    assert list(workload.batches()) == [
        (Sample("a", 0), Sample("a", 1), Sample("b", 0)),
        (Sample("b", 1),),
    ]


@pytest.mark.parametrize("name", ["seeds", "height", "width", "steps", "batch_size"])
def test_a_count_of_zero_is_refused_by_name(name: str) -> None:
    with pytest.raises(InputError, match=f"{name} must be a whole number of at least 1, got 0"):
        WorkloadRequest(**{name: 0})


@pytest.mark.parametrize("prompts", [(), ("a cat", " ")])
def test_empty_prompts_are_refused(prompts: tuple[str, ...]) -> None:
    with pytest.raises(InputError, match="none of them empty"):
        WorkloadRequest(prompts=prompts)


def test_prompts_are_read_a_line_each(tmp_path: Path) -> None:
    path = tmp_path / "prompts.txt"
    path.write_text("\ufeff# animals\na cat\n\n  a dog \n", encoding="utf-8")
    assert read_prompts(path) == ("a cat", "a dog")


def test_a_prompts_file_without_a_prompt_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "prompts.txt"
    path.write_text("# nothing\n\n")
    with pytest.raises(InputError, match="holds no prompt"):
        read_prompts(path)


def test_a_missing_prompts_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"Cannot read the prompts file .*missing\.txt"):
        read_prompts(tmp_path / "missing.txt")


@given(content=st.binary(max_size=200))
def test_any_file_gives_prompts_or_an_input_error(
    content: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("prompts") / "prompts.txt"
    path.write_bytes(content)
    try:
        prompts = read_prompts(path)
    except InputError:
        return
    assert prompts
    assert all(prompt.strip() for prompt in prompts)
