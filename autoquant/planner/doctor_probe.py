"""The process that tries one scheme: quantize a small layer, run it, weigh it.

    python -m autoquant.planner.doctor_probe torchao:int8wo cpu

The last line of its output is a ``Probed`` as JSON.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from pydantic import BaseModel

if TYPE_CHECKING:
    import torch

# As wide as the kernels that want most: int4 of torchao needs whole groups of 128 from 384 on.
_WIDTH = 512
_TOKENS = 64

# A layer that lost its weights is off by 1.0; two bits a weight leave 0.5.
_LARGEST_ERROR = 0.75


class Probed(BaseModel):
    """What the trial saw, or the reason why it failed."""

    bits: float | None = None
    error: float | None = None
    failure: str | None = None


def probe(scheme_text: str, device: str) -> Probed:
    """Try one scheme on one device, as the planner would use it."""
    import torch

    from autoquant.search_spaces.backends import backend
    from autoquant.search_spaces.scheme import CHECKPOINT, Scheme
    from autoquant.storage import weight_bytes

    if device != "cpu":
        torch.accelerator.set_device_index(torch.device(device))
    scheme = Scheme.parse(scheme_text)
    if scheme.backend == CHECKPOINT:
        return _probe_folder(scheme.precision, device)
    owner = backend(scheme.backend)
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Linear(_WIDTH, _WIDTH)).to(torch.bfloat16)
    inputs = torch.randn(_TOKENS, _WIDTH, dtype=torch.bfloat16, device=device)
    with torch.no_grad():
        expected = module.to(device)(inputs).float()
        layers = owner.quantizable_layers(module.to("cpu"), scheme.precision)
        if layers != ("0",):
            return Probed(
                failure=f"it finds no layer to quantize in a Linear of {_WIDTH} x {_WIDTH}"
            )
        recipe = owner.recipe(scheme.precision)
        recipe.function(module, layers, **recipe.arguments)
        output = module.to(device)(inputs).float()
    bits = weight_bytes(module.get_submodule("0")) * 8 / _WIDTH**2
    return _judged(output, expected, bits)


def _probe_folder(method: str, device: str) -> Probed:
    """Load a folder that was quantized before, as a user's would be."""
    from pathlib import Path
    from tempfile import TemporaryDirectory

    import torch

    from autoquant.planner.doctor_folders import LAYER, SmallModel, write_folder
    from autoquant.search_spaces.backends.checkpoint import load_checkpoint
    from autoquant.storage import weight_bytes

    torch.manual_seed(0)
    inputs = torch.randn(_TOKENS, _WIDTH, dtype=torch.bfloat16, device=device)
    with TemporaryDirectory() as folder, torch.no_grad():
        original = write_folder(method, Path(folder), _WIDTH)
        expected = original.to(device)(inputs).float()
        with torch.device("meta"):
            model = SmallModel(_WIDTH).to(torch.bfloat16)
        load_checkpoint(model, (LAYER,), path=folder)
        layer = model.to(device).get_submodule(LAYER)
        output = layer(inputs).float()
    return _judged(output, expected, weight_bytes(layer) * 8 / _WIDTH**2)


def _judged(output: torch.Tensor, expected: torch.Tensor, bits: float) -> Probed:
    n_bad = int((~output.isfinite()).sum())
    if n_bad:
        return Probed(failure=f"{n_bad} of {output.numel()} outputs are not finite")
    error = float((output - expected).norm() / expected.norm())
    if error > _LARGEST_ERROR:
        return Probed(failure=f"the output is wrong: relative error {error:.2f}")
    if bits >= 16:
        return Probed(failure=f"it saves nothing: {bits:.2f} bits a weight")
    return Probed(bits=bits, error=error)


def main() -> None:
    """Try the scheme and device of the command line."""
    try:
        probed = probe(*sys.argv[1:3])
    except Exception as error:  # noqa: BLE001 - whatever a library raises is the finding
        words = " ".join(str(error).split()) or "no message"
        probed = Probed(failure=f"{type(error).__name__}: {words}")
    print(f"\n{probed.model_dump_json()}")


if __name__ == "__main__":
    main()
