"""GGUF files of random blocks: also of the formats that the gguf package reads but cannot make."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np

# Where each format keeps its float16 scales in a block (ggml-common.h); a random scale would be
# infinite or no number.
_SCALES = {
    "Q2_K": (80, 82),
    "Q3_K": (108,),
    "Q4_K": (0, 2),
    "Q5_K": (0, 2),
    "Q6_K": (208,),
    "IQ4_NL": (0,),
    "IQ4_XS": (0,),
}
KINDS = tuple(_SCALES)
_SMALL = np.frombuffer(np.float16(1e-3).tobytes(), np.uint8)


def random_blocks(kind: str, height: int, width: int, seed: int = 0) -> Any:
    """A matrix of ``height`` x ``width`` weights as uint8 blocks."""
    block, size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[kind]]
    blocks = np.random.default_rng(seed).integers(
        0, 256, (height, width // block, size), dtype=np.uint8
    )
    for place in _SCALES[kind]:
        blocks[:, :, place : place + 2] = _SMALL
    return blocks.reshape(height, -1)


def write_model(path: Path, module: Any, kind: str, otherwise: str = "Q8_0") -> None:
    """Write ``module`` under its own names: matrices as ``kind`` where rows are whole blocks.

    ``kind`` is filled with random blocks if the gguf package cannot make it of the weights.
    """
    writer = gguf.GGUFWriter(path, "diffusers")
    for seed, (name, tensor) in enumerate(module.state_dict().items()):
        data = tensor.float().numpy()
        used = next((k for k in (kind, otherwise) if _fits(k, data)), None)
        if used is None:
            writer.add_tensor(name, data)
            continue
        made = gguf.GGMLQuantizationType[used]
        blocks = (
            random_blocks(used, *data.shape, seed)
            if used in _SCALES
            else gguf.quants.quantize(data, made)
        )
        writer.add_tensor(name, blocks, raw_dtype=made)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _fits(kind: str, data: Any) -> bool:
    block, _ = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[kind]]
    return data.ndim == 2 and data.shape[1] % block == 0
