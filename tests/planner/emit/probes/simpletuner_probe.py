"""Build the configs of a SimpleTuner file with SimpleTuner's own code.

Usage: simpletuner_probe.py FILE PACKAGE. The methods that read the file are lifted out of
ModelFoundation; importing that whole would need everything that trains. Prints each component's
finished config as JSON.
"""

from __future__ import annotations

import ast
import json
import logging
import sys
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any

path, package = sys.argv[1:]
root = Path(package)
for name in ("", "helpers", "helpers.training"):
    module = types.ModuleType(f"simpletuner.{name}".rstrip("."))
    module.__path__ = [str(root.joinpath(*filter(None, name.split("."))))]
    sys.modules[module.__name__] = module

from simpletuner.helpers.training import quantisation  # noqa: E402

METHODS = (
    "_extract_quantization_entry",
    "_build_component_quantization_config",
    "_resolve_pipeline_backend_config",
    "_register_pipeline_quantization_config",
)
tree = ast.parse((root / "helpers/models/common.py").read_text())
foundation = next(
    node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "ModelFoundation"
)
lifted = ast.ClassDef(
    name="Lifted",
    bases=[],
    keywords=[],
    body=[
        node
        for node in foundation.body
        if isinstance(node, ast.FunctionDef) and node.name in METHODS
    ],
    decorator_list=[],
)
scope: dict[str, Any] = {
    **vars(quantisation),
    "Mapping": Mapping,
    "Optional": Any,
    "logger": logging.getLogger(__name__),
}
exec(compile(ast.fix_missing_locations(ast.Module([lifted], [])), "lifted", "exec"), scope)

entries = json.loads(Path(path).read_text())
owner = scope["Lifted"]()
owner.config = types.SimpleNamespace(
    quantization_config=entries["quantization_config"],
    weight_dtype="bfloat16",
    quantize_via=entries["quantize_via"],
)
built = {}
for name in entries["quantization_config"]:
    if name.startswith("_"):
        continue
    config = owner._build_component_quantization_config([name])
    library = type(config).__module__.partition(".")[0]
    built[name] = None if config is None else {"library": library, **config.to_dict()}
print(json.dumps(built, default=str))
