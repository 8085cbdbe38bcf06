"""The device that measures: which one, what it is, and its own counters.

Every call that knows one accelerator from another is in this file. ``torch`` is imported inside the
functions so that plans, which carry a ``DeviceFingerprint``, can be read without it.
"""

from __future__ import annotations

import gc
import logging
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from packaging.version import Version
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
    "triton",
    "flash-attn",
    "sageattention",
    "xformers",
)

# Environment variables that change which device is used, how its memory is handed out, or speed.
_DECIDING_VARIABLES = (
    "CUDA_VISIBLE_DEVICES",
    "CUDA_DEVICE_ORDER",
    "CUDA_LAUNCH_BLOCKING",
    "CUBLAS_WORKSPACE_CONFIG",
    "HIP_VISIBLE_DEVICES",
    "ROCR_VISIBLE_DEVICES",
    "ZE_AFFINITY_MASK",
    "PYTORCH_ALLOC_CONF",
    "PYTORCH_CUDA_ALLOC_CONF",
    "PYTORCH_HIP_ALLOC_CONF",
    "NVIDIA_TF32_OVERRIDE",
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
)

# The first torch whose MPS allocator answers torch.accelerator (pytorch#186748, #193838); before,
# every one of its calls ends in "Allocator for mps is not a DeviceAllocator".
_MPS_COUNTS_SINCE = "2.14"
# Where a copy from pinned host memory overlaps with the computation, so that some stays pinned.
_PINS_HOST_MEMORY = frozenset({"cuda", "xpu"})

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

    ``None`` and ``auto`` mean the accelerator that torch reports as available, else the CPU. An
    accelerator always comes with its index, which some of torch's calls insist on.

    Raises:
        InputError: The device is unknown to torch, absent on this machine, or its memory cannot be
            counted by the installed torch.
    """
    import torch

    # Without the check, a CUDA build names "cuda" on a machine that has none.
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    if requested is None or requested == "auto":
        return torch.device("cpu") if accelerator is None else _indexed(accelerator)
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
    return _indexed(device)


def _indexed(device: torch.device) -> torch.device:
    import torch

    if device.type == "mps" and Version(torch.__version__) < Version(_MPS_COUNTS_SINCE):
        raise InputError(
            f"torch {torch.__version__} does not count the memory of mps: upgrade it "
            f"(pip install \"torch>={_MPS_COUNTS_SINCE}\"), or use the device 'cpu'."
        )
    index: int | None = device.index
    if index is None:
        # Asking starts the device, and the memory that its context takes then seems another's.
        is_started = getattr(torch.get_device_module(device), "is_initialized", lambda: True)()
        index = torch.accelerator.current_device_index() if is_started else 0
    return torch.device(device.type, index)


@contextmanager
def on_device(device: torch.device) -> Iterator[None]:
    """Make ``device`` the current one of its kind inside.

    Kernels of Triton, streams of diffusers and what a library puts on plain ``cuda`` go to the
    current device, whatever device the tensors beside them are on.
    """
    if device.type == "cpu":
        yield
        return
    import torch

    with torch.accelerator.device_index(device.index):
        yield


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
        _, total_bytes = _free_and_total_bytes(device)
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


def hardware() -> dict[str, str]:
    """What this machine computes with, told without torch and without starting an accelerator.

    Equal hardware gives equal fingerprints; the number of usable cores and threads is part of it,
    because it changes every latency on a CPU.
    """
    found = {
        "processor": _processor_name(),
        "memory_gb": str(_gib(_machine_bytes())),
        "cores": str(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0),
        **{name: os.environ[name] for name in _DECIDING_VARIABLES if name in os.environ},
        **_nvidia_cards(),
    }
    # Cards of other makers: the kernel's own names for them.
    for entry in sorted(Path("/sys/class/drm").glob("card*/device/device")):
        found[entry.parts[-3]] = entry.read_text(encoding="utf-8").strip()
    return found


def _nvidia_cards() -> dict[str, str]:
    import pynvml

    try:
        pynvml.nvmlInit()
        cards = {"driver": str(pynvml.nvmlSystemGetDriverVersion())}
        for index in range(pynvml.nvmlDeviceGetCount()):
            handle = pynvml.nvmlDeviceGetHandleByIndex(index)
            total = int(pynvml.nvmlDeviceGetMemoryInfo(handle).total)
            cards[f"nvidia{index}"] = f"{pynvml.nvmlDeviceGetName(handle)}, {_gib(total)} GB"
        pynvml.nvmlShutdown()
    except pynvml.NVMLError as error:
        _logger.debug("NVML tells of no card: %s", error)
        return {}
    return cards


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
    """Collect garbage and hand unused blocks back: to the device, and pinned ones to the host."""
    gc.collect()
    if device.type != "cpu":
        import torch

        torch.accelerator.empty_cache()
        # A streamed offload pins all weights; newer torches can be asked to let go of them.
        empty_host_cache = getattr(torch.accelerator, "empty_host_cache", None)
        if device.type in _PINS_HOST_MEMORY and empty_host_cache is not None:
            empty_host_cache()


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


def reserved_bytes(device: torch.device) -> int:
    """Bytes that the allocator holds on ``device`` now, cache included; 0 on a CPU."""
    if device.type == "cpu":
        return 0
    import torch

    return torch.accelerator.memory_reserved(device)


def allocated_bytes(device: torch.device) -> int:
    """Bytes that live tensors take on an accelerator now."""
    import torch

    return torch.accelerator.memory_allocated(device)


def capacity_bytes(device: torch.device) -> int:
    """Bytes that this process may use on ``device``: what it holds and what is free."""
    if device.type == "cpu":
        import psutil  # type: ignore[import-untyped, unused-ignore]

        return int(psutil.virtual_memory().available + psutil.Process().memory_info().rss)
    free_bytes, _ = _free_and_total_bytes(device)
    return free_bytes + reserved_bytes(device)


@contextmanager
def memory_limit(device: torch.device, limit_bytes: int | None) -> Iterator[bool]:
    """Let the allocator refuse to hold more than ``limit_bytes`` on ``device`` inside.

    Yields whether the limit is enforced: CUDA and XPU take one.
    """
    if device.type not in {"cuda", "xpu"} or limit_bytes is None:
        yield False
        return
    import torch

    module = torch.get_device_module(device)
    set_fraction = getattr(module, "set_per_process_memory_fraction", None)
    if set_fraction is None:
        yield False
        return
    get_fraction = getattr(module, "get_per_process_memory_fraction", None)
    fraction_before = 1.0 if get_fraction is None else get_fraction(device)
    _, total_bytes = _free_and_total_bytes(device)
    release_memory(device)
    set_fraction(min(fraction_before, limit_bytes / total_bytes), device)
    try:
        yield True
    finally:
        set_fraction(fraction_before, device)


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
    except (pynvml.NVMLError, RuntimeError) as error:
        # torch raises its own error for a missing driver, and for slices of a card (MIG).
        _logger.warning("NVML does not tell the memory in use on %s: %s", device, error)
        return None


def _free_and_total_bytes(device: torch.device) -> tuple[int, int]:
    import torch

    # torch.accelerator has it since torch 2.10.
    ask = getattr(torch.accelerator, "get_memory_info", None)
    free_bytes, total_bytes = (ask or torch.get_device_module(device).mem_get_info)(device)
    return int(free_bytes), int(total_bytes)


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
