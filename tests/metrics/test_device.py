from __future__ import annotations

import inspect
import logging
import subprocess
import sys
from importlib import metadata
from typing import Any

import pynvml
import pytest
import torch

from autoquant.errors import InputError
from autoquant.metrics.device import (
    DeviceFingerprint,
    allocated_bytes,
    capacity_bytes,
    fingerprint,
    hardware,
    memory_limit,
    nvml_used_bytes,
    on_device,
    package_versions,
    release_memory,
    reserved_bytes,
    resolve_device,
    synchronize,
)
from tests.metrics.conftest import FakeAccelerator

CPU = torch.device("cpu")


@pytest.fixture
def no_accelerator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda check_available: None)


@pytest.mark.parametrize("requested", [None, "auto", "cpu"])
@pytest.mark.usefixtures("no_accelerator")
def test_without_an_accelerator_the_cpu_is_chosen(requested: str | None) -> None:
    assert resolve_device(requested) == CPU


@pytest.mark.parametrize(
    ("requested", "fault"),
    [("cuda", "not on this machine"), ("meta", "not on this machine"), ("gpu", "unknown to torch")],
)
@pytest.mark.usefixtures("no_accelerator")
def test_an_absent_device_is_refused_with_what_is_there(requested: str, fault: str) -> None:
    with pytest.raises(InputError, match=f"{requested}.*{fault}.*available here: 'cpu'"):
        resolve_device(requested)


@pytest.mark.usefixtures("fake_accelerator")
def test_an_accelerator_is_chosen_and_its_indices_are_checked() -> None:
    assert resolve_device("auto") == torch.device("cuda:0")
    assert resolve_device("cuda") == torch.device("cuda:0")
    assert resolve_device("cuda:1") == torch.device("cuda:1")
    assert resolve_device("cpu") == CPU
    with pytest.raises(InputError, match=r"'cuda:2' is out of range.*'cuda:0', 'cuda:1', 'cpu'"):
        resolve_device("cuda:2")
    with pytest.raises(InputError, match="'mps' is not on this machine"):
        resolve_device("mps")


def test_the_fingerprint_of_a_cpu() -> None:
    found = fingerprint(CPU)
    assert found.kind == "cpu"
    assert found.name
    assert found.memory_gb > 0.1
    assert found.driver is None
    assert DeviceFingerprint.model_validate_json(found.model_dump_json()) == found


@pytest.mark.usefixtures("fake_accelerator")
def test_the_fingerprint_of_a_cuda_card() -> None:
    expected = DeviceFingerprint(name="NVIDIA L4", kind="cuda", memory_gb=24.0, driver="580.1")
    assert fingerprint(torch.device("cuda:1")) == expected


def test_the_properties_that_a_fingerprint_reads_exist() -> None:
    assert {"name", "total_memory"} <= set(dir(torch._C._CudaDeviceProperties))


def test_versions_of_installed_packages_only(monkeypatch: pytest.MonkeyPatch) -> None:
    versions = package_versions()
    assert versions["torch"] == metadata.version("torch")
    assert versions["diffusers"] == metadata.version("diffusers")

    def absent(distribution: str) -> str:
        raise metadata.PackageNotFoundError(distribution)

    monkeypatch.setattr(metadata, "version", absent)
    assert package_versions() == {}


def test_the_cpu_needs_neither_waiting_nor_emptying(fake_accelerator: FakeAccelerator) -> None:
    synchronize(CPU)
    release_memory(CPU)
    assert fake_accelerator.calls == []
    synchronize(torch.device("cuda:0"))
    release_memory(torch.device("cuda:0"))
    assert fake_accelerator.calls == ["synchronize", "empty_cache", "empty_host_cache"]


def test_nvml_that_cannot_tell_is_logged(
    fake_accelerator: FakeAccelerator,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert nvml_used_bytes(torch.device("cuda:0")) == 5000
    assert nvml_used_bytes(CPU) is None

    def unsupported(device: torch.device) -> int:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)

    monkeypatch.setattr(torch.cuda, "device_memory_used", unsupported)
    with caplog.at_level(logging.WARNING):
        assert nvml_used_bytes(torch.device("cuda:0")) is None
    assert "NVML does not tell" in caplog.text

    def slice_of_a_card(device: torch.device) -> int:
        raise RuntimeError("device 0 is not visible (CUDA_VISIBLE_DEVICES=[])")

    monkeypatch.setattr(torch.cuda, "device_memory_used", slice_of_a_card)
    assert nvml_used_bytes(torch.device("cuda:0")) is None


def test_what_plans_read_needs_no_torch() -> None:
    modules = ("device", "latency", "score", "statistics", "images", "metric", "fidelity")
    imports = "; ".join(f"import autoquant.metrics.{module}" for module in modules)
    check = f"import sys; {imports}; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", check], check=True)


def test_a_limit_is_a_share_of_the_card_and_ends_with_the_region(
    fake_accelerator: FakeAccelerator, monkeypatch: pytest.MonkeyPatch
) -> None:
    fractions: list[float] = []

    def set_fraction(fraction: float, index: int) -> None:
        assert index == 0
        fractions.append(fraction)

    # torch's own functions run, and check their arguments; what is under them needs a driver.
    monkeypatch.setattr(torch.cuda.memory, "_lazy_init", lambda: None)
    monkeypatch.setattr(torch._C, "_cuda_setMemoryFraction", set_fraction, raising=False)
    monkeypatch.setattr(torch._C, "_cuda_getMemoryFraction", lambda index: 1.0, raising=False)
    card = resolve_device("auto")
    with memory_limit(card, 12 * 2**30) as is_enforced:
        assert is_enforced
        assert fractions == [0.5]
        assert "empty_cache" in fake_accelerator.calls
    assert fractions == [0.5, 1.0]
    with pytest.raises(ZeroDivisionError), memory_limit(card, 48 * 2**30):
        raise ZeroDivisionError
    assert fractions[2:] == [1.0, 1.0]
    for device, limit in [(CPU, 12), (card, None)]:
        with memory_limit(device, limit) as is_enforced:
            assert not is_enforced
    assert len(fractions) == 4


def test_a_device_is_named_without_starting_it(
    fake_accelerator: FakeAccelerator, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert resolve_device("auto") == torch.device("cuda:0")
    assert "current_device_index" not in fake_accelerator.calls
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.accelerator, "current_device_index", lambda: 1)
    assert resolve_device("auto") == torch.device("cuda:1")


def test_a_card_is_the_current_one_inside(fake_accelerator: FakeAccelerator) -> None:
    with on_device(torch.device("cuda:1")):
        assert fake_accelerator.current == 1
        with on_device(CPU):
            assert fake_accelerator.current == 1
    assert fake_accelerator.current == 0


def test_an_old_torch_cannot_count_the_memory_of_mps(
    fake_accelerator: FakeAccelerator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        torch.accelerator, "current_accelerator", lambda check_available: torch.device("mps")
    )
    monkeypatch.setattr(torch, "__version__", "2.14.1")
    assert resolve_device("auto") == torch.device("mps:0")
    monkeypatch.setattr(torch, "__version__", "2.11.0")
    with pytest.raises(InputError, match=r"torch 2\.11\.0 does not count.*torch>=2\.14"):
        resolve_device("auto")


def test_the_size_of_a_card_is_known_to_a_torch_without_get_memory_info(
    fake_accelerator: FakeAccelerator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(torch.accelerator, "get_memory_info")
    signature = inspect.signature(torch.cuda.mem_get_info)

    def free_and_total(*arguments: Any) -> tuple[int, int]:
        signature.bind(*arguments)
        return 7000, 9000

    monkeypatch.setattr(torch.cuda, "mem_get_info", free_and_total)
    assert capacity_bytes(torch.device("cuda:0")) == 7000 + 1000


@pytest.mark.usefixtures("fake_accelerator")
def test_what_a_process_may_use_is_what_it_holds_and_what_is_free() -> None:
    card = torch.device("cuda:0")
    assert (reserved_bytes(card), allocated_bytes(card)) == (1000, 800)
    assert capacity_bytes(card) == 20 * 2**30 + 1000
    assert reserved_bytes(CPU) == 0
    assert capacity_bytes(CPU) > 2**26


def test_hardware_names_the_cores_and_the_variables_that_decide(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    found = hardware()
    assert found["OMP_NUM_THREADS"] == "3"
    assert found["CUDA_VISIBLE_DEVICES"] == "1"
    assert int(found["cores"]) >= 1
    assert found["processor"]
