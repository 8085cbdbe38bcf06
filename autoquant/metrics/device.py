"""The device that measures: which one, what it is, and its own counters.

Every call that knows one accelerator from another is in this file. ``torch`` is imported inside the
functions so that plans, which carry a ``DeviceFingerprint``, can be read without it.
"""

from __future__ import annotations

import gc
import logging
import platform
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict

from autoquant.errors import InputError

if TYPE_CHECKING:
    import torch

GIB = 2**30
"""Bytes in one GB as this package counts them: card sizes are given in powers of two."""

_DISTRIBUTIONS = (
    "torch",
    "diffusers",
    "transformers",
    "accelerate",
    "bitsandbytes",
    "torchao",
    "optimum-quanto",
    "gguf",
    "nvidia-modelopt",
    "auto-round",
    "sdnq",
)

_logger = logging.getLogger(__name__)


class DeviceFingerprint(BaseModel):
    """What must match for two measurements to be comparable.

    Attributes:
        name: Marketing name of the card or of the processor.
        kind: torch's device type: ``cpu``, ``cuda``, ``xpu``, ``mps``, …
        memory_gb: Total memory of the device in GiB; of the machine for ``cpu``.
        driver: Version of the driver, where the device has one that can be asked.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    kind: str
    memory_gb: float
    driver: str | None = None


def resolve_device(requested: str | None = None) -> torch.device:
    """Turn ``auto``, ``cpu``, ``cuda:1``, … into a device that is really there.

    ``None`` and ``auto`` mean the accelerator that torch reports as available, else the CPU.

    Raises:
        InputError: The device is unknown to torch or absent on this machine.
    """
    import torch

    # Without the check, a CUDA build names "cuda" on a machine that has none.
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    if requested is None or requested == "auto":
        return accelerator or torch.device("cpu")
    try:
        device = torch.device(requested)
    except RuntimeError as error:
        raise InputError(
            f"Device {requested!r} is unknown to torch; {_available(accelerator)}."
        ) from error
    if device.type == "cpu":
        return device
    if accelerator is None or device.type != accelerator.type:
        raise InputError(f"Device {requested!r} is not on this machine; {_available(accelerator)}.")
    if (device.index or 0) >= torch.accelerator.device_count():
        raise InputError(f"Device {requested!r} is out of range; {_available(accelerator)}.")
    return device


def fingerprint(device: torch.device) -> DeviceFingerprint:
    """Describe ``device``.

    Raises:
        RuntimeError: The device is no CPU and the accelerator cannot be asked.
    """
    if device.type == "cpu":
        return DeviceFingerprint(
            name=_processor_name(), kind="cpu", memory_gb=_gib(_machine_bytes())
        )
    import torch

    module = torch.get_device_module(device)
    if not hasattr(module, "get_device_properties"):
        _, total_bytes = torch.accelerator.get_memory_info(device)
        return DeviceFingerprint(
            name=_processor_name(), kind=device.type, memory_gb=_gib(total_bytes)
        )
    properties = module.get_device_properties(device)
    return DeviceFingerprint(
        name=str(properties.name),
        kind=device.type,
        memory_gb=_gib(int(properties.total_memory)),
        driver=_driver(device, properties),
    )


def compute_capability(device: torch.device) -> tuple[int, int] | None:
    """CUDA compute capability, like (8, 9) for Ada; None for what is no NVIDIA card."""
    if not _is_nvidia(device):
        return None
    import torch

    return torch.cuda.get_device_capability(device)


def package_versions() -> dict[str, str]:
    """Versions of the installed packages that can change a measurement, by distribution name."""
    versions = {}
    for distribution in _DISTRIBUTIONS:
        try:
            versions[distribution] = metadata.version(distribution)
        except metadata.PackageNotFoundError:
            _logger.debug("%s is not installed", distribution)
    return versions


def synchronize(device: torch.device) -> None:
    """Wait until ``device`` has done all work queued on it; the CPU queues none."""
    if device.type != "cpu":
        import torch

        torch.accelerator.synchronize(device)


def release_memory(device: torch.device) -> None:
    """Collect garbage and hand the allocator's unused blocks back to the device."""
    gc.collect()
    if device.type != "cpu":
        import torch

        torch.accelerator.empty_cache()


def reset_peaks(device: torch.device) -> None:
    """Make the accelerator's allocator forget its peaks so far."""
    import torch

    torch.accelerator.reset_peak_memory_stats(device)


def peak_reserved_bytes(device: torch.device) -> int:
    """Most bytes that the allocator held on ``device`` since ``reset_peaks``, cache included."""
    import torch

    return torch.accelerator.max_memory_reserved(device)


def peak_allocated_bytes(device: torch.device) -> int:
    """Most bytes that live tensors took on the accelerator since ``reset_peaks``."""
    import torch

    return torch.accelerator.max_memory_allocated(device)


def nvml_used_bytes(device: torch.device) -> int | None:
    """Bytes in use on an NVIDIA card right now, by every process, as ``nvidia-smi`` shows them.

    It holds what no allocator sees: the context, workspaces of libraries, other processes. None for
    other devices, and where the driver does not offer the counter (logged as a warning).
    """
    if not _is_nvidia(device):
        return None
    import pynvml
    import torch

    try:
        return int(torch.cuda.device_memory_used(device))
    except pynvml.NVMLError as error:
        _logger.warning("NVML does not tell the memory in use on %s: %s", device, error)
        return None


def _is_nvidia(device: torch.device) -> bool:
    import torch

    # A ROCm build also calls its devices "cuda".
    return device.type == "cuda" and torch.version.hip is None


def _driver(device: torch.device, properties: Any) -> str | None:
    import torch

    if not _is_nvidia(device):
        version = getattr(properties, "driver_version", None) or torch.version.hip
        return str(version) if version else None
    import pynvml

    try:
        pynvml.nvmlInit()
        return str(pynvml.nvmlSystemGetDriverVersion())
    except pynvml.NVMLError as error:
        _logger.warning("NVML does not tell the driver's version: %s", error)
        return None


def _available(accelerator: torch.device | None) -> str:
    import torch

    if accelerator is None:
        return "available here: 'cpu' ('auto' picks it)"
    n_devices = torch.accelerator.device_count()
    indices = ", ".join(f"'{accelerator.type}:{index}'" for index in range(n_devices))
    return f"available here: {indices}, 'cpu' ('auto' picks '{accelerator}')"


def _processor_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name" and value.strip():
                return value.strip()
    return platform.processor() or platform.machine()


def _machine_bytes() -> int:
    import psutil  # type: ignore[import-untyped, unused-ignore]

    return int(psutil.virtual_memory().total)


def _gib(n_bytes: int) -> float:
    return round(n_bytes / GIB, 2)
