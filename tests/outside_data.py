"""Every reader of outside data, a valid example for it, and ways to damage the example."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from hypothesis import strategies as st

from autoquant.errors import InputError
from autoquant.planner.emit.loader_script import loader_script
from autoquant.planner.footprint.gguf_header import read_gguf_header
from autoquant.planner.footprint.headers import read_header
from autoquant.planner.plan import Plan
from autoquant.planner.source import read_model_index
from autoquant.planner.workload import read_prompts
from autoquant.search_spaces.compatibility import read_rules
from autoquant.search_spaces.quantized_folder import read_quantized_folder
from autoquant.search_spaces.sensitivity import Family, read_family
from autoquant.search_spaces.space_file import parse_space_file

Reader = Callable[[bytes, Path], object]

_SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([2**60, -1, 10**30, "", "none", "../../etc/passwd", "a\nb", '"""', "{0}%s"])
    | st.floats()
    | st.text(max_size=12)
)
_ANYTHING = st.recursive(
    _SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=6,
)


@st.composite
def edited(draw: st.DrawFn, document: Any) -> Any:
    """``document`` with up to three of its entries replaced, removed, or joined by another."""
    document = copy.deepcopy(document)
    for _ in range(draw(st.integers(1, 3))):
        holder = document
        while True:
            places: list[Any] = list(holder) if isinstance(holder, dict) else [*range(len(holder))]
            if not places:
                break
            place = draw(st.sampled_from(places))
            inner = holder[place]
            if isinstance(inner, dict | list) and inner and draw(st.integers(0, 3)):
                holder = inner
                continue
            action = draw(st.sampled_from(["replace", "replace", "remove", "add"]))
            if action == "remove":
                del holder[place]
            elif action == "add" and isinstance(holder, dict):
                holder[draw(st.text(max_size=8))] = draw(_ANYTHING)
            else:
                holder[place] = draw(_ANYTHING)
            break
    return document


@st.composite
def overwritten(draw: st.DrawFn, content: bytes) -> bytes:
    """``content`` cut short, or with some of its bytes overwritten."""
    place = draw(st.integers(0, max(0, len(content) - 1)))
    if draw(st.booleans()):
        return content[:place]
    other = draw(st.binary(min_size=1, max_size=12))
    return content[:place] + other + content[place + len(other) :]


def damaged_text(
    document: Any, write: Callable[[Any], str] = json.dumps
) -> st.SearchStrategy[bytes]:
    """The file that holds ``document``, with an edit in it or damage to its bytes."""
    content = write(document).encode()
    return st.one_of(
        edited(document).map(lambda changed: write(changed).encode(errors="surrogatepass")),
        overwritten(content),
        st.binary(max_size=80),
    )


def read_plan(content: bytes, directory: Path) -> None:
    """Read a plan; a script is made of what is accepted, and must be Python."""
    path = directory / "plan.json"
    path.write_bytes(content)
    plan = Plan.load_json(path)
    classes = dict.fromkeys(plan.components, ("diffusers", "FluxTransformer2DModel"))
    overridden = {
        name: {override.scheme: override.layers for override in part.overrides}
        for name, part in plan.components.items()
    }
    loader_script(plan, plan.pipeline.source, classes, {}, overridden)


def read_space(content: bytes, directory: Path) -> object:
    """Read a space file."""
    return parse_space_file(_text(content), "own.yaml")


def read_prompt_file(content: bytes, directory: Path) -> object:
    """Read a file of prompts."""
    path = directory / "prompts.txt"
    path.write_bytes(content)
    return read_prompts(path)


def read_index(content: bytes, directory: Path) -> object:
    """Read a pipeline directory's index."""
    (directory / "model_index.json").write_bytes(content)
    return read_model_index(directory)


def read_safetensors(content: bytes, directory: Path) -> object:
    """Read a safetensors header."""
    return read_header("x", len(content), lambda offset, n: content[offset : offset + n])


def read_gguf(content: bytes, directory: Path) -> object:
    """Read a GGUF header."""
    return read_gguf_header("x", len(content), lambda offset, n: content[offset : offset + n])


def read_folder(content: bytes, directory: Path) -> object:
    """Read the config of a model folder that was quantized before."""
    folder = directory / "folder"
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_bytes(content)
    for name in ("diffusion_pytorch_model", "model"):
        (folder / f"{name}.safetensors").write_bytes(safetensors_file(HEADER))
    return read_quantized_folder(folder).kind


def read_table(content: bytes, directory: Path) -> object:
    """Read a compatibility table."""
    return read_rules(_text(content), "table.yaml")


def read_family_file(content: bytes, directory: Path) -> object:
    """Read a family file."""
    return read_family(_text(content), "family.yaml", Family)


def _text(content: bytes) -> str:
    return content.decode("utf-8", errors="replace")


def safetensors_file(entries: Any) -> bytes:
    """A file whose header is ``entries``, with 64 bytes of data."""
    header = json.dumps(entries).encode(errors="surrogatepass")
    return len(header).to_bytes(8, "little") + header + bytes(64)


def gguf_file(tmp_path: Path) -> bytes:
    """A small file as the gguf package writes it."""
    import gguf
    import numpy as np

    path = tmp_path / "small.gguf"
    writer = gguf.GGUFWriter(path, "flux")
    writer.add_uint32("flux.block_count", 1)
    writer.add_array("flux.names", ["a", "b"])
    writer.add_tensor("plain", np.ones((4, 8), np.float32))
    quantized = gguf.quants.quantize(np.ones((4, 64), np.float32), gguf.GGMLQuantizationType.Q8_0)
    writer.add_tensor("q.weight", quantized, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path.read_bytes()


SPACE = {
    "components": {
        "transformer": {
            "schemes": ["none", "torchao:int8wo"],
            "exclusions": [[], ["proj_out", r"blocks\.\d+\.norm"]],
            "fuse_qkv": [False],
            "mixed": [
                {
                    "scheme": "torchao:int8wo",
                    "overrides": {r"blocks\.\d+": "torchao:int8dq", "proj_out": "torchao:float8wo"},
                    "exclusions": ["x_embedder"],
                }
            ],
        }
    },
    "runtime": {"offload": ["none", "model"], "vae_tiling": [True]},
}
INDEX = {
    "_class_name": "FluxPipeline",
    "_diffusers_version": "0.42.1",
    "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "transformer": ["diffusers", "FluxTransformer2DModel"],
}
HEADER = {
    "__metadata__": {"format": "pt"},
    "a.weight": {"dtype": "BF16", "shape": [4, 4], "data_offsets": [0, 32]},
    "b": {"dtype": "F32", "shape": [8], "data_offsets": [32, 64]},
}
QUANTIZED = {
    "_class_name": "FluxTransformer2DModel",
    "num_layers": 1,
    "quantization_config": {
        "quant_method": "torchao",
        "quant_type": {"default": {"_type": "Int8WeightOnlyConfig", "_data": {}}},
        "svdq_w4a4": {"precision": "int4"},
        "bits": 4,
    },
}
RULES = [
    {
        "schemes": "torchao:.*",
        "devices": ["cuda"],
        "capability_below": [8, 9],
        "offload": "group.*",
        "versions": {"diffusers": ">=0.33"},
        "reason": "it fails",
        "source": "somewhere",
    }
]
FAMILY = {
    "family": "x",
    "pipelines": "X.*",
    "sensitive": [
        {
            "models": "X",
            "tier": "boundary",
            "layers": ["proj_out"],
            "why": "it hurts",
            "source": "somewhere",
        }
    ],
    "pointless": [{"models": "X", "schemes": "y:z", "why": "no gain", "source": "somewhere"}],
}


def readers(scratch: Path, plan: Any) -> dict[str, tuple[Reader, st.SearchStrategy[bytes]]]:
    """Each kind of outside data: how it is read, and damaged examples of it.

    Args:
        scratch: A directory for the examples that a library writes.
        plan: The entries of a valid plan.
    """
    return {
        "plan": (read_plan, damaged_text(plan)),
        "space file": (read_space, damaged_text(SPACE, yaml.safe_dump)),
        "prompt file": (read_prompt_file, st.binary(max_size=200)),
        "model_index.json": (read_index, damaged_text(INDEX)),
        "safetensors header": (
            read_safetensors,
            edited(HEADER).map(safetensors_file) | overwritten(safetensors_file(HEADER)),
        ),
        "GGUF header": (read_gguf, overwritten(gguf_file(scratch))),
        "quantized folder": (read_folder, damaged_text(QUANTIZED)),
        "compatibility table": (read_table, damaged_text(RULES, yaml.safe_dump)),
        "family file": (read_family_file, damaged_text(FAMILY, yaml.safe_dump)),
    }


def is_read_or_refused(reader: Reader, content: bytes, directory: Path) -> bool:
    """Whether ``content`` is accepted; anything but an ``InputError`` against it is raised."""
    try:
        reader(content, directory)
    except InputError:
        return False
    return True
