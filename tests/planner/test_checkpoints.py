"""``--checkpoint FOLDER``: from the command to a plan whose script loads the folder."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers import DiffusionPipeline

from autoquant import autoquant
from autoquant.errors import InputError
from autoquant.planner.checkpoints import NamedCheckpoint
from autoquant.planner.emit.layout import read_layout
from autoquant.planner.plan import Plan
from autoquant.planner.preparation import prepare
from autoquant.planner.request import Request, require_sensible
from autoquant.planner.workload import WorkloadRequest
from tests.families import classic
from tests.in_process import Command, Script
from tests.search_spaces.quantized_folders import nunchaku_folder, save_quantized

SMALL = WorkloadRequest(prompts=("a red circle",), steps=1, height=64, width=64)
ONLY_FILES = (
    "components:\n"
    "  transformer: {schemes: [none], fuse_qkv: [false]}\n"
    "  text_encoder: {schemes: [none]}\n"
    "  text_encoder_2: {schemes: [none]}\n"
    "runtime: {vae_tiling: [false]}\n"
)


@pytest.fixture(scope="module")
def flux(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pipeline, and beside it folders of its transformer and its T5, quantized."""
    directory = tmp_path_factory.mktemp("models") / "flux"
    pipeline = classic.flux()
    pipeline.save_pretrained(directory)
    pipeline = DiffusionPipeline.from_pretrained(directory, dtype=torch.bfloat16)
    save_quantized(pipeline.transformer, "torchao:int8wo", directory.parent / "int8")
    save_quantized(pipeline.text_encoder_2, "bitsandbytes:int8", directory.parent / "t5")
    return directory


def test_folders_become_the_plan_and_its_script_loads_them(
    flux: Path, tmp_path: Path, run_script: Script
) -> None:
    out = tmp_path / "plan"
    (tmp_path / "own.yaml").write_text(ONLY_FILES)
    folders = {"transformer": flux.parent / "int8", "text_encoder_2": flux.parent / "t5"}
    plan = autoquant(
        DiffusionPipeline.from_pretrained(flux, dtype=torch.bfloat16),
        vram_gb=1,
        checkpoints=[folders["transformer"], f"text_encoder_2={folders['text_encoder_2']}"],
        space_file=tmp_path / "own.yaml",
        workload=SMALL,
        metric="flip",
        download=False,
        trials=4,
        confirm=False,
        device="cpu",
        out=out,
    )
    assert plan == Plan.load_json(out / "plan.json")
    schemes = {name: NamedCheckpoint(folder).scheme for name, folder in folders.items()}
    made = [
        point
        for point in plan.pareto
        if all(point.components[name].scheme == scheme for name, scheme in schemes.items())
    ]
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
    layout = read_layout(chosen)
    assert "proj_out" in layout.components["transformer"].quantized
    chosen.emit("diffusers", tmp_path / "script")
    said = run_script(tmp_path / "script" / "load_pipeline.py")
    assert f"weights: {made[0].measured.weights_gb:.6f} GB" in said


def test_a_component_or_a_folder_that_does_not_fit_is_told(flux: Path, tmp_path: Path) -> None:
    for named, message in [
        (f"text_encoder={flux.parent / 't5'}", "no weights of this CLIPTextModel"),
        (f"vae={flux.parent / 't5'}", "no component 'vae' to decide on; it has transformer"),
        (str(_nunchaku(flux, tmp_path)), "for NVIDIA cards"),
    ]:
        request = Request(pipeline=str(flux), workload=SMALL, checkpoints=(named,), device="cpu")
        with pytest.raises(InputError, match=message):
            prepare(request, tmp_path)


def test_a_space_file_names_a_folder(flux: Path, tmp_path: Path) -> None:
    file = tmp_path / "own.yaml"
    scheme = NamedCheckpoint(flux.parent / "int8").scheme
    file.write_text(ONLY_FILES.replace("schemes: [none]", f'schemes: ["{scheme}"]', 1))
    request = Request(pipeline=str(flux), workload=SMALL, space_file=str(file), device="cpu")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("autoquant.planner.preparation.first_that_fits", _stop)
        with pytest.raises(_Stopped):
            prepare(request, tmp_path)
    file.write_text(file.read_text().replace(scheme, f"checkpoint:{tmp_path / 'none'}"))
    with pytest.raises(InputError, match="There is no folder"):
        prepare(request, tmp_path)


def test_a_folder_that_is_not_there_is_told_at_once(
    flux: Path, tmp_path: Path, autoquant_command: Command
) -> None:
    with pytest.raises(InputError, match="There is no folder"):
        require_sensible(Request(pipeline=str(flux), checkpoints=(str(tmp_path / "none"),)))
    done = autoquant_command("suggest", flux, "--vram", "1", "--checkpoint", f"transformer={flux}")
    assert done.returncode == 2
    assert "is a whole pipeline" in done.stderr


class _Stopped(Exception):
    pass


def _stop(*_: object) -> None:
    raise _Stopped


def _nunchaku(flux: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "nunchaku"
    transformer = DiffusionPipeline.from_pretrained(flux, dtype=torch.bfloat16).transformer
    nunchaku_folder(transformer, folder, precision="int4")
    return folder
