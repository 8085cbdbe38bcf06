"""``--gguf FILE``: from the command to a plan whose script loads the file."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers import DiffusionPipeline

from autoquant import autoquant
from autoquant.errors import InputError
from autoquant.planner.gguf_files import gguf_scheme, require_gguf_files
from autoquant.planner.plan import Plan
from autoquant.planner.preparation import prepare
from autoquant.planner.request import Request, require_sensible
from autoquant.planner.workload import WorkloadRequest
from tests.families import classic
from tests.in_process import Command, Script
from tests.search_spaces.backends.gguf_blocks import write_model

SMALL = WorkloadRequest(prompts=("a red circle",), steps=1, height=64, width=64)


@pytest.fixture(scope="module")
def flux(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pipeline, and beside it a GGUF file of its transformer's own weights."""
    directory = tmp_path_factory.mktemp("models") / "flux"
    pipeline = classic.flux()
    pipeline.save_pretrained(directory)
    write_model(directory.parent / "flux-Q8_0.gguf", pipeline.transformer, "Q8_0")
    write_model(directory.parent / "clip.gguf", pipeline.text_encoder, "Q8_0")
    return directory


def test_a_file_becomes_the_plan_and_its_script_loads_it(
    flux: Path, tmp_path: Path, run_script: Script
) -> None:
    out = tmp_path / "plan"
    file = flux.parent / "flux-Q8_0.gguf"
    (tmp_path / "own.yaml").write_text(
        "components:\n"
        "  transformer: {schemes: [none], fuse_qkv: [false]}\n"
        "  text_encoder: {schemes: [none]}\n"
        "  text_encoder_2: {schemes: [none]}\n"
        "runtime: {vae_tiling: [false]}\n"
    )
    plan = autoquant(
        DiffusionPipeline.from_pretrained(flux, dtype=torch.bfloat16),
        vram_gb=1,
        gguf_files=[file],
        space_file=tmp_path / "own.yaml",
        workload=SMALL,
        metric="flip",
        download=False,
        trials=2,
        confirm=False,
        device="cpu",
        out=out,
    )
    assert plan == Plan.load_json(out / "plan.json")
    made = [p for p in plan.pareto if p.components["transformer"].scheme == gguf_scheme(file)]
    assert made
    assert made[0].measured.weights_gb < plan.reference.weights_gb
    chosen = plan.model_copy(
        update={
            "components": {
                name: part.model_copy(update={"scheme": made[0].components[name].scheme})
                for name, part in plan.components.items()
            }
        }
    )
    assert chosen.load(device="cpu").transformer.dtype == torch.bfloat16
    chosen.emit("diffusers", tmp_path / "script")
    said = run_script(tmp_path / "script" / "load_pipeline.py")
    assert f"weights: {made[0].measured.weights_gb:.6f} GB" in said


def test_a_file_that_fits_no_component_is_told_before_a_weight_is_loaded(
    flux: Path, tmp_path: Path
) -> None:
    request = Request(
        pipeline=str(flux), workload=SMALL, gguf_files=(str(flux.parent / "clip.gguf"),)
    )
    with pytest.raises(InputError, match=r"clip\.gguf holds no weights of this FluxTransformer"):
        prepare(request, tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "no GGUF file at"), (b"GGUF", "x.gguf"), (b"not one at all", "x.gguf")],
)
def test_a_bad_file_is_told_at_once(
    flux: Path, tmp_path: Path, content: bytes | None, message: str
) -> None:
    file = tmp_path / "x.gguf"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(InputError, match=message):
        require_sensible(Request(pipeline=str(flux), gguf_files=(str(file),)))


def test_the_command_takes_files_and_tells_a_missing_one(
    flux: Path, tmp_path: Path, autoquant_command: Command
) -> None:
    done = autoquant_command("suggest", flux, "--vram", "1", "--gguf", tmp_path / "none.gguf")
    assert done.returncode == 2
    assert "There is no GGUF file at" in done.stderr


def test_a_file_without_quantized_weights_is_told(flux: Path, tmp_path: Path) -> None:
    write_model(tmp_path / "plain.gguf", classic.flux().text_encoder, "BF16", otherwise="BF16")
    with pytest.raises(InputError, match="no quantized weights"):
        require_gguf_files([gguf_scheme(tmp_path / "plain.gguf")])
