"""Check an SGLang config with the code that SGLang checks it with.

Usage: sglang_probe.py FILE PACKAGE. ServerArgs itself needs a server's worth of packages to import,
so its fields are read from the source, and the part of it that checks quantization is lifted out
and run. Prints what it makes of the file, as JSON.
"""

from __future__ import annotations

import ast
import json
import sys
import types
from pathlib import Path
from typing import Any

import yaml

path, package = sys.argv[1:]
runtime = Path(package) / "multimodal_gen/runtime"
tree = ast.parse((runtime / "server_args/server_args.py").read_text())
server_args = next(
    node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "ServerArgs"
)
fields = {
    node.target.id
    for node in server_args.body
    if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
}


def mentions(node: ast.AST, name: str) -> bool:
    return any(isinstance(part, ast.Attribute) and part.attr == name for part in ast.walk(node))


def checking_statements() -> list[ast.stmt]:
    """The run of statements that normalises component quantizations and what they ignore."""
    for method in server_args.body:
        if not isinstance(method, ast.FunctionDef):
            continue
        for block in ast.walk(method):
            body = getattr(block, "body", None)
            if not isinstance(body, list):
                continue
            named = [
                index
                for index, statement in enumerate(body)
                if isinstance(statement, ast.For)
                and (
                    mentions(statement.iter, "component_quantizations")
                    or mentions(statement.iter, "component_quantization_ignored_layers")
                )
            ]
            if len(named) == 2:
                return body[named[0] - 1 : named[1] + 4]
    raise SystemExit("SGLang's checks are not where they were")


function = ast.FunctionDef(
    name="check",
    args=ast.arguments([], [ast.arg("self")], None, [], [], None, []),
    body=checking_statements(),
    decorator_list=[],
)
scope: dict[str, Any] = {}
exec(compile(ast.fix_missing_locations(ast.Module([function], [])), "lifted", "exec"), scope)

entries = yaml.safe_load(Path(path).read_text())
owner = types.SimpleNamespace(
    component_quantizations=entries.get("component_quantizations", {}),
    component_quantization_ignored_layers=entries.get("component_quantization_ignored_layers", {}),
)
scope["check"](owner)

loader = ast.parse((runtime / "loader/component_loaders/text_encoder_loader.py").read_text())
online = next(
    {constant.value for constant in ast.walk(node.value) if isinstance(constant, ast.Constant)}
    for node in loader.body
    if isinstance(node, ast.Assign)
    and ast.unparse(node.targets[0]) == "_ONLINE_ENCODER_QUANTIZATIONS"
)
print(
    json.dumps(
        {
            "unknown": sorted(set(entries) - fields),
            "quantizations": owner.component_quantizations,
            "ignored": owner.component_quantization_ignored_layers,
            "online": sorted(online),
        }
    )
)
