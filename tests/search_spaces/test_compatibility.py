from __future__ import annotations

import re

import pytest

from autoquant.errors import BackendUnavailable, InputError
from autoquant.search_spaces import backends
from autoquant.search_spaces.compatibility import conflicts, read_rules, rules
from autoquant.search_spaces.space import open_space
from autoquant.search_spaces.usable import usable_schemes

SCHEMES = [
    f"{name}:{precision}"
    for name, owner in backends.backends().items()
    for precision in owner.precisions
]
FOLDERS = [
    *("checkpoint:nunchaku_lite:int4", "checkpoint:nunchaku_lite:nvfp4"),
    *("checkpoint:auto-round:int4", "checkpoint:bitsandbytes:nf4", "checkpoint:quanto:int8"),
]
NOW = {
    "torch": "2.14.1",
    "diffusers": "0.42.1",
    "transformers": "5.23.0",
    "torchao": "0.18.0",
    "bitsandbytes": "0.50.2",
    "optimum-quanto": "0.2.7",
    "peft": "0.21.2",
}
CARDS = {"A100": (8, 0), "RTX 3090": (8, 6), "L40S": (8, 9), "H100": (9, 0), "B200": (10, 0)}


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule.reason[:40])
def test_every_rule_is_about_something(rule):
    assert [scheme for scheme in (*SCHEMES, *FOLDERS) if re.fullmatch(rule.schemes, scheme)]
    assert rule.devices or rule.compute_dtypes or rule.levers
    assert rule.reason[-1] not in ".\n"


@pytest.mark.parametrize(
    ("card", "without"),
    [
        ("A100", {"torchao:float8dq"}),
        ("RTX 3090", {"torchao:float8dq"}),
        ("L40S", set()),
        ("H100", set()),
        ("B200", set()),
    ],
)
def test_generations_of_cards(card, without):
    capability = CARDS[card]
    struck = {
        scheme
        for scheme in SCHEMES
        if conflicts(scheme, "cuda", NOW, capability=capability, compute_dtype="bfloat16")
    }
    assert struck == without


def test_turing_has_neither_kernel():
    for scheme in ("torchao:float8dq", "torchao:int4wo"):
        assert conflicts(scheme, "cuda", NOW, capability=(7, 5))


def test_a_dtype_can_forbid_a_scheme():
    [found] = conflicts("torchao:int4wo", "cuda", NOW, compute_dtype="float16")
    assert "bfloat16" in found.reason


@pytest.mark.parametrize(
    ("scheme", "lever", "forbidden"),
    [
        ("quanto:int8", {"offload": "group_leaf"}, True),
        ("quanto:int8", {"offload": "model"}, False),
        ("bitsandbytes:nf4", {"offload": "group_block_stream"}, True),
        ("bitsandbytes:nf4", {"offload": "model"}, False),
        ("layerwise:float8_e4m3fn", {"offload": "group_leaf_stream"}, False),
        ("layerwise:float8_e4m3fn", {"compile": "regional"}, True),
        ("torchao:int8wo", {"offload": "group_leaf"}, False),
        ("torchao:int8wo", {"offload": "group_leaf_stream"}, False),
        ("torchao:int4wo", {"offload": "group_leaf_stream"}, True),
        ("torchao:int4wo", {"offload": "group_leaf"}, False),
        ("torchao:int8wo", {"offload": "sequential"}, False),
        ("quanto:int8", {"offload": "sequential"}, True),
        ("quanto:int4", {"offload": "model"}, True),
        ("bitsandbytes:nf4", {"offload": "sequential"}, True),
        ("gguf:Q4_0", {"offload": "sequential"}, True),
        ("gguf:Q4_0", {"offload": "group_leaf_stream"}, False),
        ("torchao:int8wo", {"compile": "regional"}, False),
        ("torchao:int8wo", {"lora": True}, False),
        ("gguf:Q8_0", {"save": True}, True),
        ("sdnq:int8", {"lora": True}, False),
    ],
)
def test_levers(scheme, lever, forbidden):
    found = conflicts(scheme, "cuda", NOW, **lever)
    assert bool(found) == forbidden
    assert all(set(conflict.levers) == set(lever) for conflict in found)


def test_a_rule_holds_for_its_versions_only():
    moved = {"offload": "model"}
    assert not conflicts("bitsandbytes:int8", "cuda", NOW, **moved)
    old = NOW | {"bitsandbytes": "0.47.0"}
    [found] = conflicts("bitsandbytes:int8", "cuda", old, **moved)
    assert "0.48" in found.reason
    assert not conflicts("bitsandbytes:int8", "cuda", {}, **moved)


def test_a_rule_can_be_about_one_library_of_models():
    saved = {"save": True}
    assert conflicts("quanto:int8", "cpu", NOW, component="transformers.T5EncoderModel", **saved)
    assert not conflicts("quanto:int4", "cpu", NOW, component="diffusers.UNet", **saved)
    assert conflicts("sdnq:int8", "cpu", NOW, component="diffusers.UNet", **saved)


def test_the_space_is_struck_by_the_table(build, monkeypatch):
    monkeypatch.setattr(
        "autoquant.search_spaces.compatibility.rules",
        lambda: read_rules(
            '- {schemes: "quanto:int8", devices: [cpu], components: "transformers.CLIP.*",'
            ' reason: "one", source: "here"}\n'
            '- {schemes: "quanto:float8", devices: [cpu], reason: "two", source: "here"}\n',
            "test",
        ),
    )
    modules = {"text_encoder": build("clip"), "transformer": build("flux")}
    space = open_space("FluxPipeline", modules, "cpu", ["quanto"])
    struck = {(entry.component, entry.scheme): entry.reason for entry in space.struck}
    assert struck["text_encoder", "quanto:int8"] == "one"
    assert ("transformer", "quanto:int8") not in struck
    assert struck["transformer", "quanto:float8"] == "two"
    with pytest.raises(BackendUnavailable, match=r"'quanto:float8' was asked for.*two"):
        usable_schemes("cpu", ["quanto:float8"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- {schemes: x, reason: r}", "source"),
        ("- {schemes: '(', reason: r, source: s}", "no regular expression"),
        ("- {schemes: x, reason: r, source: s, verison: {}}", "verison"),
        ("- {schemes: x, reason: r, source: s, versions: {torch: new}}", "no version range"),
        ("- [", "no YAML"),
    ],
)
def test_a_wrong_table_is_named(text, message):
    with pytest.raises(InputError, match=message):
        read_rules(text, "mine.yaml")
