from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from diffusers import FluxTransformer2DModel
from diffusers.loaders import single_file_utils
from diffusers.quantizers.gguf.utils import GGUFParameter, dequantize_gguf_tensor

from autoquant.errors import InputError
from autoquant.planner.checkpoint.flux_names import HALVES_SWAPPED, single_file_tensors
from autoquant.planner.checkpoint.gguf_file import write_gguf
from autoquant.planner.plan import PlannedComponent
from tests.in_process import Command
from tests.planner.emit.conftest import demo_plan
from tests.planner.emit.real_tools import probe, tool_directory

CONVERT = "convert_flux_transformer_checkpoint_to_diffusers"


def test_the_names_are_those_that_diffusers_converts() -> None:
    """FLUX.1-dev's own sizes, without weights: diffusers finds every tensor in its place."""
    with torch.device("meta"):
        model = FluxTransformer2DModel(guidance_embeds=True)
    ours = dict(model.state_dict())
    single_file = {
        native: torch.cat([ours[part] for part in parts])
        for native, parts in single_file_tensors(ours).items()
    }
    theirs = getattr(single_file_utils, CONVERT)(single_file)
    assert {name: t.shape for name, t in theirs.items()} == {n: t.shape for n, t in ours.items()}
    assert any(name.startswith(HALVES_SWAPPED) for name in single_file_tensors(ours))


def converted(path: Path) -> dict[str, torch.Tensor]:
    """What diffusers makes of a file, for a model as small as the demo."""
    tensors = {}
    for tensor in gguf.GGUFReader(path).tensors:
        data = torch.from_numpy(tensor.data.copy())
        is_plain = tensor.tensor_type == gguf.GGMLQuantizationType.F32
        tensors[tensor.name] = (
            data
            if is_plain
            else dequantize_gguf_tensor(GGUFParameter(data, quant_type=tensor.tensor_type)).float()
        )
    # The one thing about it that is not read from the file is the width of FLUX.1.
    source = inspect.getsource(getattr(single_file_utils, CONVERT)).replace("3072", "256")
    scope: dict[str, Any] = dict(vars(single_file_utils))
    exec(source, scope)
    found: dict[str, torch.Tensor] = scope[CONVERT](tensors)
    return found


def test_the_file_holds_what_was_measured(
    demo_directory: Path, tmp_path: Path, autoquant_command: Command
) -> None:
    plan = demo_plan(transformer=PlannedComponent(scheme="gguf:Q8_0", exclusions=("proj_out",)))
    plan.save(tmp_path / "plan.json")
    done = autoquant_command(
        *("quantize", tmp_path / "plan.json", "--gguf", "--out", tmp_path / "out"),
        *("--source", demo_directory, "--json"),
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["tensors"]["Q8_0"] > 0
    found = converted(tmp_path / "out" / "transformer-Q8_0.gguf")
    planned = plan.load(demo_directory, device="cpu").transformer
    for name, tensor in planned.state_dict().items():
        is_blocks = isinstance(tensor, GGUFParameter)
        expected = dequantize_gguf_tensor(tensor) if is_blocks else tensor
        torch.testing.assert_close(found[name], expected.float(), rtol=0, atol=0)


def test_stable_diffusion_cpp_reads_the_same_numbers(demo_directory: Path, tmp_path: Path) -> None:
    tool = tool_directory("stable_diffusion_cpp")
    plan = demo_plan(transformer=PlannedComponent(scheme="gguf:Q5_1", exclusions=("proj_out",)))
    written = write_gguf(plan, tmp_path / "out", source=str(demo_directory), force=True)
    converted = tmp_path / "f32.gguf"
    types = probe(
        "stable_diffusion_cpp_probe", written.path, converted, "f32", "", path=tool.parent
    )
    assert list(types.values()).count("F32") > 30
    ours, theirs = numbers(written.path), numbers(converted)
    assert set(theirs) == set(ours)
    for name, values in ours.items():
        np.testing.assert_array_equal(theirs[name], values, name)


def test_comfyui_gguf_reads_the_same_numbers(demo_directory: Path, tmp_path: Path) -> None:
    comfyui, comfyui_gguf = tool_directory("ComfyUI"), tool_directory("ComfyUI-GGUF")
    plan = demo_plan(transformer=PlannedComponent(scheme="gguf:Q5_1", exclusions=("proj_out",)))
    written = write_gguf(plan, tmp_path / "out", source=str(demo_directory), force=True)
    probe(
        *("comfyui_probe", comfyui, comfyui_gguf, tmp_path / "base", "read"),
        *(written.path, tmp_path / "read.npz"),
        path=tool_directory("comfyui_deps"),
    )
    ours, theirs = numbers(written.path), np.load(tmp_path / "read.npz")
    assert set(theirs) == set(ours)
    for name, values in ours.items():
        np.testing.assert_array_equal(theirs[name], values, name)


def numbers(path: Path) -> dict[str, Any]:
    return {
        tensor.name: gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        for tensor in gguf.GGUFReader(path).tensors
    }


@pytest.mark.parametrize(
    ("part", "reason"),
    [
        ("torchao:int8wo", "needs a transformer planned as gguf"),
        (PlannedComponent(scheme="gguf:Q8_0", fuse_qkv=True), "unfused"),
        (
            PlannedComponent(scheme="gguf:Q8_0", exclusions=("transformer_blocks.0.attn.to_q",)),
            "are one tensor in a single file",
        ),
    ],
)
def test_what_no_file_can_hold_is_refused(
    part: PlannedComponent | str, reason: str, demo_directory: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=reason):
        write_gguf(demo_plan(transformer=part), tmp_path / "out", source=str(demo_directory))
    assert list(tmp_path.iterdir()) == []
