"""LPIPS through torchmetrics' own class, on a backbone of random weights: only the wiring."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torchvision.models import AlexNet_Weights, alexnet

from autoquant.errors import MetricUnavailable
from autoquant.metrics.fidelity import available_metrics, deciding_metric
from autoquant.metrics.images import Images
from autoquant.metrics.lpips import make
from autoquant.metrics.metric import MetricSettings
from tests.metrics.contract import check_loss
from tests.metrics.test_lpips_weights import Bomb

SETTINGS = MetricSettings((64, 64))


def named_by_its_hash(file: Path) -> Path:
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    return file.rename(file.with_name(f"alexnet-owt-{digest[:8]}.pth"))


@pytest.fixture(scope="module")
def random_alexnet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint with the names and shapes of torchvision's; the unused layers take no space."""
    with torch.device("meta"):
        shapes = {name: tensor.shape for name, tensor in alexnet().state_dict().items()}
    generator = torch.Generator().manual_seed(0)
    state = {
        name: 0.05 * torch.randn(shape, generator=generator)
        if name.startswith("features")
        else torch.zeros(1).expand(shape)
        for name, shape in shapes.items()
    }
    file = tmp_path_factory.mktemp("alexnet") / "unnamed.pth"
    torch.save(state, file)
    return named_by_its_hash(file)


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[Path], Path]:
    """Put a file where torchvision looks, under the name that torchvision expects."""

    def installed(file: Path) -> Path:
        target = tmp_path / "hub" / "checkpoints" / file.name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, target)
        url = f"https://download.pytorch.org/models/{file.name}"
        monkeypatch.setattr(AlexNet_Weights.DEFAULT.value, "url", url)
        return target

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    return installed


def test_it_is_a_loss_that_grows_with_noise(
    random_alexnet: Path,
    install: Callable[[Path], Path],
    pictures: Images,
    noisy: Callable[[float], Images],
) -> None:
    install(random_alexnet)
    [lpips] = make(SETTINGS)
    check_loss(lpips, pictures, noisy)
    assert lpips.identity == f"lpips: {random_alexnet.stem}, heads 0.1"
    one, same = (lpips.per_image(pictures[:1], noisy(0.1)[:1], ["x"]) for _ in range(2))
    assert one == same == lpips.per_image(pictures, noisy(0.1), ["x", "y", "z"])[:1]


def test_with_its_weights_it_decides(random_alexnet: Path, install: Callable[[Path], Path]) -> None:
    install(random_alexnet)
    usable, missing = available_metrics(["lpips", "flip"], (64, 64), allow_download=False)
    assert missing == {}
    assert deciding_metric("auto", usable, missing) == "lpips"


def test_a_file_that_would_run_code_is_refused(
    install: Callable[[Path], Path], tmp_path: Path
) -> None:
    marker = tmp_path / "it_ran"
    bomb = tmp_path / "bomb.pth"
    torch.save({"features.0.weight": Bomb(marker)}, bomb)
    installed = install(named_by_its_hash(bomb))
    with pytest.raises(MetricUnavailable, match=f"{installed} does not hold AlexNet's weights"):
        make(SETTINGS)
    assert not marker.exists()


@pytest.mark.parametrize("content", [{}, {"features.0.weight": torch.zeros(3)}, [1, 2]])
def test_a_file_of_something_else_is_refused(
    install: Callable[[Path], Path], tmp_path: Path, content: object
) -> None:
    file = tmp_path / "other.pth"
    torch.save(content, file)
    install(named_by_its_hash(file))
    with pytest.raises(MetricUnavailable, match="does not hold AlexNet's weights"):
        make(SETTINGS)


def test_damage_is_refused_before_anything_is_loaded(
    random_alexnet: Path, install: Callable[[Path], Path]
) -> None:
    with install(random_alexnet).open("ab") as file:
        file.write(b"x")
    with pytest.raises(MetricUnavailable, match="damaged or not what its name says"):
        make(SETTINGS)


def test_small_images_are_refused(random_alexnet: Path, install: Callable[[Path], Path]) -> None:
    install(random_alexnet)
    assert make(MetricSettings((32, 32)))
    with pytest.raises(MetricUnavailable, match="at least 32 pixels a side, images are 64x31"):
        make(MetricSettings((64, 31)))
