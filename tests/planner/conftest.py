from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers import DiffusionPipeline

from autoquant import demo
from autoquant.planner.workload import WorkloadRequest

FEW = WorkloadRequest(prompts=tuple(demo.WORKLOAD["prompts"][:3]), steps=2)


@pytest.fixture(scope="session")
def demo_directory() -> Path:
    return demo.pipeline_directory()


@pytest.fixture
def demo_pipeline(demo_directory: Path) -> DiffusionPipeline:
    return DiffusionPipeline.from_pretrained(demo_directory, dtype=torch.bfloat16)
