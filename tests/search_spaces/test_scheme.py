from __future__ import annotations

import pytest
from pydantic import ValidationError

from autoquant.planner.candidate import Candidate, choice_label
from autoquant.search_spaces.scheme import Choice, Override

NF4, INT8 = "bitsandbytes:nf4", "bitsandbytes:int8"


def test_a_choice_without_overrides_is_written_as_before_there_were_any() -> None:
    """Studies and caches know a candidate by this text, and images by its hash."""
    choice = Choice(scheme=NF4, exclusions=("proj_out",))
    assert choice.model_dump_json() == (
        '{"scheme":"bitsandbytes:nf4","exclusions":["proj_out"],"fuse_qkv":false}'
    )
    assert Choice.model_validate_json(choice.model_dump_json()) == choice
    assert Candidate(components={"transformer": Choice()}).digest == "04c564fa3c4c1c0d"


def test_equal_overrides_are_equal_however_they_are_written() -> None:
    one = Override(scheme=INT8, layers=("b", "a", "b"))
    parts = (Override(scheme=INT8, layers=("b",)), Override(scheme=INT8, layers=("a",)))
    whole, pieces = Choice(scheme=NF4, overrides=(one,)), Choice(scheme=NF4, overrides=parts)
    assert whole == pieces
    assert hash(whole) == hash(pieces)
    assert whole.model_dump_json() == pieces.model_dump_json()
    assert Choice.model_validate_json(whole.model_dump_json()) == whole
    assert whole.schemes == (NF4, INT8)
    assert [whole.scheme_at(path) for path in ("a", "b.c", "bc")] == [INT8, INT8, NF4]


def test_a_label_says_which_layers_differ() -> None:
    few = Choice(scheme=NF4, overrides=(Override(scheme=INT8, layers=("proj_out",)),))
    assert choice_label(few) == "bitsandbytes:nf4 (proj_out in int8)"
    many = Override(scheme=INT8, layers=tuple(f"transformer_blocks.{n}" for n in range(9)))
    kept = Choice(scheme=NF4, overrides=(many,), exclusions=("proj_out",), fuse_qkv=True)
    assert choice_label(kept) == (
        "bitsandbytes:nf4 (9 modules in int8) (keeps proj_out) + fused QKV"
    )


@pytest.mark.parametrize(
    ("scheme", "overrides", "told"),
    [
        (NF4, [("sdnq:int8", ["a"])], "sdnq:int8 for some layers is of another backend"),
        ("none", [(INT8, ["a"])], "of another backend than none"),
        (NF4, [(NF4, ["a"])], "is the scheme of the other layers too"),
        (NF4, [("none", ["a"])], "exclusions, not overrides"),
        (NF4, [(INT8, [])], "at least 1 item"),
        (NF4, [("int8", ["a"])], "A scheme must be"),
        (
            NF4,
            [(INT8, ["a"]), ("bitsandbytes:fp4", ["a.b"])],
            "a.b is given two schemes",
        ),
    ],
)
def test_what_no_backend_could_do_is_no_choice(scheme: str, overrides: list, told: str) -> None:
    entries = [{"scheme": each, "layers": layers} for each, layers in overrides]
    with pytest.raises(ValidationError, match=told):
        Choice.model_validate({"scheme": scheme, "overrides": entries})
