from __future__ import annotations

import hashlib
import os
import pickle
import time
from pathlib import Path

import pytest
import torch
from torchvision.models import AlexNet_Weights

from autoquant.errors import MetricUnavailable
from autoquant.metrics import lpips_weights
from autoquant.metrics.lpips_weights import alexnet_file, require_own_hash, weights_only_loading

FORCE = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
FORBID = "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"


@pytest.fixture
def checkpoints(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


def test_a_missing_file_is_named_with_its_place_and_source(checkpoints: Path) -> None:
    with pytest.raises(MetricUnavailable) as caught:
        alexnet_file(allow_download=False)
    assert str(checkpoints / "alexnet-owt-7be5be79.pth") in str(caught.value)
    assert "https://download.pytorch.org/models/alexnet-owt-7be5be79.pth" in str(caught.value)


def test_a_server_that_does_not_answer_costs_seconds(
    checkpoints: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unanswered = "http://127.0.0.1:9/alexnet-owt-7be5be79.pth"
    monkeypatch.setattr(AlexNet_Weights.DEFAULT.value, "url", unanswered)
    monkeypatch.setenv("no_proxy", "*")
    start = time.perf_counter()
    with pytest.raises(MetricUnavailable, match=r"does not answer .*; put http"):
        alexnet_file(allow_download=True)
    assert time.perf_counter() - start < 5


def test_a_download_is_checked_and_kept(checkpoints: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = b"weights"
    prefix = hashlib.sha256(content).hexdigest()[:8]
    source = checkpoints.parent / f"alexnet-{prefix}.pth"
    source.write_bytes(content)
    monkeypatch.setattr(lpips_weights, "require_reachable", lambda url, way_out: None)
    monkeypatch.setattr(AlexNet_Weights.DEFAULT.value, "url", source.as_uri())
    assert alexnet_file(allow_download=True).read_bytes() == content
    wrong = checkpoints.parent / "alexnet-00000000.pth"
    wrong.write_bytes(content)
    monkeypatch.setattr(AlexNet_Weights.DEFAULT.value, "url", wrong.as_uri())
    with pytest.raises(MetricUnavailable, match=r"could not be fetched \(invalid hash value"):
        alexnet_file(allow_download=True)
    assert [path.name for path in checkpoints.iterdir()] == [source.name]


def test_a_file_that_is_not_what_its_name_says_is_refused(checkpoints: Path) -> None:
    (checkpoints / "alexnet-owt-7be5be79.pth").write_bytes(b"something else")
    with pytest.raises(MetricUnavailable, match=r"SHA-256 begins with [0-9a-f]{8}, not 7be5be79"):
        alexnet_file(allow_download=True)
    nameless = checkpoints / "alexnet.pth"
    nameless.write_bytes(b"")
    with pytest.raises(MetricUnavailable, match="must carry the start of its SHA-256"):
        require_own_hash(nameless)


class Bomb:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.marker,)


def test_code_in_a_file_is_not_run_even_where_the_caller_asks_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    marker = tmp_path / "it_ran"
    file = tmp_path / "bomb.pth"
    torch.save({"weight": Bomb(marker)}, file)
    monkeypatch.setenv(FORBID, "1")
    with weights_only_loading(), pytest.raises(pickle.UnpicklingError):
        torch.load(file, weights_only=False)
    assert not marker.exists()
    torch.load(file, weights_only=False)
    assert marker.exists(), "the file is harmless, so the test proves nothing"


def test_the_variables_are_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(FORCE, raising=False)
    monkeypatch.setenv(FORBID, "1")
    with weights_only_loading():
        assert (os.environ[FORCE], FORBID in os.environ) == ("1", False)
    assert (FORCE in os.environ, os.environ[FORBID]) == (False, "1")
