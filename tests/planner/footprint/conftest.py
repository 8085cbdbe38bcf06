from __future__ import annotations

from pathlib import Path

import pytest

from autoquant.planner.footprint.shape_list import read_shape_list
from autoquant.planner.footprint.shapes import ModelShapes
from tests.planner.footprint.pipelines import MODELS, write_pipeline


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "model_name" in metafunc.fixturenames:
        metafunc.parametrize("model_name", sorted(path.stem for path in MODELS.glob("*.json")))


@pytest.fixture
def model(model_name: str) -> ModelShapes:
    return read_shape_list(MODELS / f"{model_name}.json")


@pytest.fixture(scope="session")
def flux() -> ModelShapes:
    return read_shape_list(MODELS / "flux.1-dev.json")


@pytest.fixture(scope="session")
def flux_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pipeline directory of FLUX.1-dev's size: headers and holes, 34 GB that take no disk."""
    shapes = read_shape_list(MODELS / "flux.1-dev.json")
    return write_pipeline(tmp_path_factory.mktemp("flux"), shapes, shards=3)
