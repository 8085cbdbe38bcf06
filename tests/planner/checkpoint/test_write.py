from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from diffusers import DiffusionPipeline

from autoquant.errors import InputError, QuantizationMismatch
from autoquant.planner.checkpoint import write
from autoquant.planner.checkpoint.reload import component_bytes, first_batch
from autoquant.planner.checkpoint.write import write_checkpoint
from autoquant.planner.plan import Plan, PlannedComponent
from tests.in_process import Command
from tests.planner.emit.conftest import demo_plan


@pytest.fixture
def original(demo_directory: Path, tmp_path: Path) -> Path:
    """The demo pipeline with a licence, as repositories have them."""
    copy = shutil.copytree(demo_directory, tmp_path / "original")
    (copy / "LICENSE.md").write_text("Do as you like.")
    (copy / "vae" / "LICENSE").write_text("The VAE's own.")
    (copy / "README.md").write_text("---\nlicense: other\nlicense_name: mine\n---\nA pipeline.\n")
    return copy


def test_a_checkpoint_is_what_the_plan_says(
    original: Path, tmp_path: Path, autoquant_command: Command
) -> None:
    plan = demo_plan(
        transformer=PlannedComponent(scheme="torchao:int8wo", exclusions=("proj_out",)),
        text_encoder_2="bitsandbytes:nf4",
        text_encoder="bitsandbytes:int8",
    )
    plan.save(tmp_path / "plan.json")
    out = tmp_path / "out"
    done = autoquant_command(
        *("quantize", tmp_path / "plan.json", "--out", out, "--source", original),
        *("--device", "cpu", "--max-shard-size", "1MB", "--json"),
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert set(result["licences"]) == {"LICENSE.md", "vae/LICENSE"}
    assert (out / "LICENSE.md").read_text() == "Do as you like."
    assert list((out / "transformer").glob("*-of-*.safetensors"))
    assert not list(out.rglob("*.bin"))
    assert str(original) not in (out / "model_index.json").read_text()
    assert Plan.load_json(out / "plan.json") == plan

    card = (out / "README.md").read_text()
    front = yaml.safe_load(card.split("---")[1])
    assert front["license"] == "other"
    assert "torchao:int8wo" in card
    assert "`proj_out`" in card
    assert "DiffusionPipeline.from_pretrained" in card

    reloaded = DiffusionPipeline.from_pretrained(out, dtype=torch.bfloat16)
    reloaded.set_progress_bar_config(disable=True)
    planned = plan.load(original, device="cpu")
    assert component_bytes(reloaded) == pytest.approx(component_bytes(planned), rel=0.001)
    difference = np.abs(
        first_batch(reloaded, plan.workload) - first_batch(planned, plan.workload)
    ).max()
    assert difference <= 8 / 255


def test_a_checkpoint_that_loads_as_something_else_is_not_kept(
    monkeypatch: pytest.MonkeyPatch, original: Path, tmp_path: Path
) -> None:
    """Without its quantizer, quanto is saved without a word, and loaded as noise."""
    monkeypatch.setattr(write, "attach_quantizer", lambda module, config: None)
    with pytest.raises((QuantizationMismatch, InputError), match="checkpoint"):
        write_checkpoint(
            demo_plan(transformer="quanto:float8"),
            tmp_path / "out",
            source=str(original),
            device="cpu",
        )
    assert {path.name for path in tmp_path.iterdir()} == {"original"}


@pytest.mark.parametrize(
    ("components", "reason"),
    [
        (
            {"transformer": "layerwise:float8_e4m3fn"},
            r"transformer \(layerwise:float8_e4m3fn\): the float8 weights are saved without",
        ),
        ({"text_encoder": "quanto:int8"}, "transformers cannot save a model that quanto"),
        (
            {"transformer": PlannedComponent(scheme="torchao:int8wo", fuse_qkv=True)},
            "fused projections are not saved",
        ),
        ({"transformer": "bitsandbytes:nf4"}, "on a GPU only"),
        ({"transformer": "quanto:int8"}, "as if they were aligned to 16 bytes"),
        ({"transformer": "sdnq:int8"}, "diffusers rounds SDNQ's float32 scales"),
        ({"text_encoder": "sdnq:int8"}, "transformers knows SDNQ only once sdnq is imported"),
        (
            {"transformer": PlannedComponent(scheme="quanto:float8", exclusions=("proj_out",))},
            "cannot tell single_transformer_blocks.0.proj_out",
        ),
    ],
)
def test_what_cannot_be_saved_is_refused_with_what_to_use_instead(
    components: dict[str, PlannedComponent | str], reason: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=f"{reason}.*autoquant emit PLAN --to diffusers"):
        write_checkpoint(demo_plan(**components), tmp_path / "out", device="cpu")
    assert list(tmp_path.iterdir()) == []


def test_files_that_are_there_stay(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").touch()
    with pytest.raises(InputError, match="holds files already"):
        write_checkpoint(demo_plan(transformer="torchao:int8wo"), tmp_path, device="cpu")


def test_other_versions_are_named(tmp_path: Path) -> None:
    plan = demo_plan(transformer="torchao:int8wo").model_copy(
        update={"versions": {"torch": "1.0.0", "no-such-package": "3"}}
    )
    with pytest.raises(InputError, match=r"torch 2\..*planned with 1\.0\.0.*no-such-package") as no:
        write_checkpoint(plan, tmp_path / "out")
    assert "--force" in str(no.value)
