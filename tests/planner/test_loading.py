"""Real pipelines: a directory, a hub cache, code that a repository brings, objects in memory."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from diffusers import DiffusionPipeline, FluxPipeline
from huggingface_hub import constants

from autoquant.errors import UnsupportedPipeline
from autoquant.planner.loading import DirectoryLoader, ObjectLoader, loader_for
from autoquant.planner.preparation import prepare
from autoquant.planner.request import Request
from autoquant.planner.source import PipelineSource, local_directory
from autoquant.planner.workload import WorkloadRequest
from autoquant.storage import held_bytes

BRINGS_CODE = """
from pathlib import Path
from diffusers import FluxPipeline

(Path(__file__).parent / "ran").touch()
Path({marker!r}).touch()

class OwnPipeline(FluxPipeline):
    pass
"""


@pytest.fixture
def copy_of_demo(demo_directory: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(demo_directory, tmp_path / "model"))


def test_a_directory_gives_fresh_components_and_a_pipeline(demo_directory: Path) -> None:
    loader = DirectoryLoader(demo_directory)
    assert loader.pipeline_class is FluxPipeline
    assert set(loader.sizes) == {"transformer", "text_encoder", "text_encoder_2", "vae"}
    assert list(loader.sizes.values()) == sorted(loader.sizes.values(), reverse=True)
    first, second = (loader.load("transformer", torch.bfloat16) for _ in range(2))
    assert first is not second
    assert not first.training
    assert all(weight.dtype == torch.bfloat16 for weight in first.parameters())
    assert loader.assemble({"transformer": first}, torch.bfloat16).transformer is first


def test_a_copy_from_memory_holds_what_the_directory_holds(
    demo_directory: Path, demo_pipeline: DiffusionPipeline
) -> None:
    from_disk = DirectoryLoader(demo_directory)
    from_memory = ObjectLoader(demo_pipeline)
    assert set(from_memory.sizes) == set(from_disk.sizes)
    for name in from_disk.sizes:
        ours, theirs = (loader.load(name, torch.bfloat16) for loader in (from_memory, from_disk))
        assert held_bytes(ours) == held_bytes(theirs)
        assert all(
            torch.equal(ours.state_dict()[key], tensor)
            for key, tensor in theirs.state_dict().items()
        )


def test_a_pipeline_with_offload_hooks_is_refused(demo_pipeline: DiffusionPipeline) -> None:
    demo_pipeline.enable_model_cpu_offload(device="cpu")
    with pytest.raises(UnsupportedPipeline, match="has offload hooks"):
        ObjectLoader(demo_pipeline)


def test_a_quantized_pipeline_is_refused(demo_pipeline: DiffusionPipeline) -> None:
    from torchao.quantization import Int8WeightOnlyConfig, quantize_

    quantize_(demo_pipeline.transformer, Int8WeightOnlyConfig(set_inductor_config=False))
    with pytest.raises(UnsupportedPipeline, match="transformer is quantized already"):
        ObjectLoader(demo_pipeline)


def test_weights_that_only_come_as_pickles_are_refused(copy_of_demo: Path) -> None:
    weights = next((copy_of_demo / "vae").glob("*.safetensors"))
    weights.rename(weights.with_suffix(".bin"))
    with pytest.raises(UnsupportedPipeline, match="vae cannot be loaded"):
        DirectoryLoader(copy_of_demo).load("vae", torch.bfloat16)


def test_a_pipeline_class_that_diffusers_does_not_have_is_named(copy_of_demo: Path) -> None:
    index = json.loads((copy_of_demo / "model_index.json").read_text())
    index["_class_name"] = "NoSuchPipeline"
    (copy_of_demo / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(UnsupportedPipeline, match="NoSuchPipeline is no pipeline"):
        DirectoryLoader(copy_of_demo)


def test_code_that_a_repository_brings_runs_only_if_it_is_trusted(
    copy_of_demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    marker = tmp_path / "ran"
    (copy_of_demo / "own.py").write_text(BRINGS_CODE.format(marker=str(marker)))
    index = json.loads((copy_of_demo / "model_index.json").read_text())
    index["_class_name"] = ["own", "OwnPipeline"]
    (copy_of_demo / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(UnsupportedPipeline, match="--trust-remote-code"):
        loader_for(copy_of_demo)
    assert not marker.exists()
    loader = loader_for(copy_of_demo, trust_remote_code=True)
    assert marker.exists()
    assert loader.pipeline_class.__name__ == "OwnPipeline"


def test_a_hub_id_in_the_cache_is_planned_offline_and_pinned_to_its_commit(
    demo_directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = tmp_path / "hub" / "models--owner--shapes"
    shutil.copytree(demo_directory, repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    size = WorkloadRequest(prompts=("a red circle",), height=64, width=64, steps=1)
    request = Request(pipeline="owner/shapes", workload=size, metric="flip")
    prepared, _ = prepare(request, tmp_path / "images")
    pinned = PipelineSource(location="owner/shapes", revision=commit)
    assert prepared.source == pinned
    assert loader_for(local_directory(pinned)).pipeline_class is FluxPipeline


@pytest.mark.parametrize(
    ("class_name", "lacks"),
    [
        ("AudioLDMPipeline", "takes no height, width"),
        ("DDPMPipeline", "takes no height, prompt, width"),
        ("WanAnimatePipeline", "its call needs image, pose_video, face_video"),
        ("FluxFillPipeline", "its call needs mask_image"),
        ("StableDiffusionAttendAndExcitePipeline", "its call needs token_indices"),
    ],
)
def test_what_draws_no_image_from_a_prompt_is_refused_by_its_signature(
    copy_of_demo: Path, class_name: str, lacks: str
) -> None:
    index = copy_of_demo / "model_index.json"
    index.write_text(json.dumps({**json.loads(index.read_text()), "_class_name": class_name}))
    with pytest.raises(UnsupportedPipeline, match=lacks):
        DirectoryLoader(copy_of_demo)
