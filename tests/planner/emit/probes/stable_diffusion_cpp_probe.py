"""Convert a single file with stable-diffusion.cpp itself.

Usage: stable_diffusion_cpp_probe.py INPUT OUTPUT.gguf TYPE RULES, as in its command line. Prints,
as JSON, the GGML type of each tensor of OUTPUT.
"""

from __future__ import annotations

import json
import sys

import gguf
import stable_diffusion_cpp.stable_diffusion_cpp as sd_cpp
from stable_diffusion_cpp.stable_diffusion import GGML_TYPE_MAP

source, target, default, rules = sys.argv[1:]
kind = GGML_TYPE_MAP[default]
if not sd_cpp.convert(source.encode(), b"", target.encode(), kind, rules.encode(), False):
    sys.exit(f"stable-diffusion.cpp cannot convert {source}")
tensors = gguf.GGUFReader(target).tensors
print(json.dumps({tensor.name: tensor.tensor_type.name for tensor in tensors}))
