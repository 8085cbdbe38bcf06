"""Write ``load_pipeline.py``: the plan in plain diffusers, without autoquant.

The functions that quantize are copied from the backends that measured, so that what is handed over
is what was measured. Every value is written as a Python literal, so nothing in a model id or a
prompt can become code.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Iterator, Mapping
from importlib import import_module
from pprint import pformat
from types import MappingProxyType, ModuleType
from typing import Any

from autoquant.errors import PlanFormatError
from autoquant.planner import levers
from autoquant.planner.candidate import Runtime
from autoquant.planner.loras import Adapter, by_component
from autoquant.planner.plan import Plan, PlannedComponent
from autoquant.search_spaces.backends import backend
from autoquant.search_spaces.fuse import fuse_qkv
from autoquant.search_spaces.lora import attach_adapters
from autoquant.search_spaces.quantize import brings_weights
from autoquant.search_spaces.scheme import Choice, Scheme

SCRIPT_NAME = "load_pipeline.py"


def loader_script(
    plan: Plan,
    source: str,
    component_classes: Mapping[str, tuple[str, str]],
    kept_layers: Mapping[str, tuple[str, ...]],
    overridden: Mapping[str, Mapping[str, tuple[str, ...]]] = MappingProxyType({}),
) -> str:
    """The text of the loader script.

    Args:
        plan: What to load.
        source: Directory or hub id to load from; a leading ``~`` is expanded when it runs.
        component_classes: Library and class of each component.
        kept_layers: For each quantized component, the Linear modules that stay as they are.
        overridden: For each component in more than one scheme, its layers by scheme, those of its
            first one left out.

    Raises:
        PlanFormatError: A component has overrides that ``overridden`` does not know.
    """
    adapters = by_component(plan.adapters)
    parts = {**dict.fromkeys(adapters, PlannedComponent()), **plan.components}
    changed = {n: part for n, part in parts.items() if part.choice != Choice() or n in adapters}
    mixed = {name: overridden.get(name, {}) for name, part in changed.items() if part.overrides}
    for name, layers in mixed.items():
        if set(layers) != {override.scheme for override in changed[name].overrides}:
            raise PlanFormatError(f"It is not known which layers of {name} the overrides are for.")
    kept = {name: kept_layers.get(name, ()) for name in changed}
    sections = [
        _header(plan),
        _imports({component_classes[name] for name in changed}),
        _constants(plan, source, kept, mixed),
        _load_function(
            plan.pipeline.class_name, source, changed, component_classes, plan.runtime, adapters
        ),
        *([inspect.getsource(attach_adapters)] if adapters else []),
        *_functions(changed, plan.runtime),
        _MAIN,
    ]
    script = "\n\n\n".join(section.strip("\n") for section in sections) + "\n"
    ast.parse(script)
    return script


def _header(plan: Plan) -> str:
    return f'''"""Load a {plan.pipeline.class_name} as planned, with plain diffusers.

    python {SCRIPT_NAME}         load, draw the plan's images, compare with its figures
    from load_pipeline import load_pipeline
"""

{_comment(_origin(plan), indent="")}'''


def _origin(plan: Plan) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in plan.versions.items())
    return f"Made by autoquant {plan.autoquant} with {versions}."


def _comment(text: str, indent: str) -> str:
    """``text`` as comment lines; what could end a line or a file is dropped."""
    printable = "".join(c for c in " ".join(text.split()) if c.isprintable())
    prefix = f"{indent}# "
    return textwrap.fill(printable, 98, initial_indent=prefix, subsequent_indent=prefix)


def _imports(classes: set[tuple[str, str]]) -> str:
    names: dict[str, set[str]] = {"diffusers": {"DiffusionPipeline"}}
    for library, class_name in classes:
        names.setdefault(library, set()).add(class_name)
    lines = [
        "from __future__ import annotations",
        "",
        "import sys",
        "from collections.abc import Iterator",
        "from pathlib import Path",
        "from typing import Any",
        "",
        "import diffusers",
        "import numpy as np",
        "import torch",
    ]
    lines += [
        f"from {library} import {', '.join(sorted(class_names))}"
        for library, class_names in sorted(names.items())
    ]
    lines += [
        "from PIL import Image",
        "from torch.utils._python_dispatch import is_traceable_wrapper_subclass",
    ]
    return "\n".join(lines)


def _constants(
    plan: Plan,
    source: str,
    kept_layers: Mapping[str, tuple[str, ...]],
    mixed: Mapping[str, Mapping[str, tuple[str, ...]]],
) -> str:
    workload = plan.workload
    call: dict[str, Any] = {
        "height": workload.height,
        "width": workload.width,
        "num_inference_steps": workload.steps,
        **workload.call_arguments,
    }
    if workload.guidance_scale is not None:
        call["guidance_scale"] = workload.guidance_scale
    batches = [[tuple(sample) for sample in batch] for batch in workload.batches()]
    kept = {name: list(paths) for name, paths in kept_layers.items()}
    values = {
        "SOURCE": source,
        "OPTIONS": {
            key: value
            for key, value in {
                "revision": plan.pipeline.revision,
                "variant": plan.pipeline.variant,
                "use_safetensors": True,
            }.items()
            if value is not None
        },
        "CALL": call,
        "BATCHES": batches,
        "WEIGHTS_GB": plan.measured.weights_gb,
        "PEAK_GB": plan.measured.peak_gb,
    }
    lines = [f"{name} = {_literal(value)}" for name, value in values.items()]
    lines.insert(2, f"DTYPE = torch.{plan.runtime.compute_dtype}")
    lines.append("# Linear modules that stay in DTYPE, by component.")
    lines.append(f"KEPT = {_literal(kept)}")
    if mixed:
        lines.append("# Layers that get another precision than the rest of their component.")
        lists = {name: {s: list(p) for s, p in layers.items()} for name, layers in mixed.items()}
        lines.append(f"OVERRIDDEN = {_literal(lists)}")
    return "\n".join(lines)


def _load_function(
    class_name: str,
    source: str,
    changed: Mapping[str, PlannedComponent],
    component_classes: Mapping[str, tuple[str, str]],
    runtime: Runtime,
    adapters: Mapping[str, tuple[Adapter, ...]],
) -> str:
    lines = [
        "def load_pipeline(source=SOURCE, device=None):",
        '    """The pipeline as planned, on the accelerator if there is one."""',
        "    if device is None:",
        "        accelerator = torch.accelerator.is_available()",
        '        device = torch.accelerator.current_accelerator() if accelerator else "cpu"',
        *([] if source else _ASK_FOR_SOURCE),
        '    source = str(Path(source).expanduser()) if source.startswith("~") else source',
        "    components = {}",
    ]
    for name, part in changed.items():
        own = adapters.get(name, ())
        lines += _component_lines(name, part, component_classes[name], runtime, own)
    lines += [
        "",
        "    # DiffusionPipeline itself would load optional components once more, as they were.",
        f"    pipeline_class = getattr(diffusers, {class_name!r}, DiffusionPipeline)",
        "    pipeline = pipeline_class.from_pretrained(",
        "        source, dtype=DTYPE, **OPTIONS, **components",
        "    )",
        *(f"    {line}" for line in _lever_lines(runtime)),
        "    return pipeline",
    ]
    return "\n".join(lines)


def _lever_lines(runtime: Runtime) -> Iterator[str]:
    """The lines that ``planner/levers.py`` carries out while measuring."""
    if runtime.vae_tiling or runtime.vae_slicing:
        yield f"set_vae(pipeline, tiling={runtime.vae_tiling}, slicing={runtime.vae_slicing})"
    if runtime.attention != "default":
        yield f"set_attention(pipeline, {runtime.attention!r})"
    if runtime.offload == "none":
        yield "pipeline.to(device)"
    else:
        yield f"enable_offload(pipeline, {runtime.offload!r}, device)"
    if runtime.compile != "none":
        yield f"compile_denoisers(pipeline, {runtime.compile!r})"


def _component_lines(
    name: str,
    part: PlannedComponent,
    component_class: tuple[str, str],
    runtime: Runtime,
    adapters: tuple[Adapter, ...],
) -> Iterator[str]:
    library, class_name = component_class[0].partition(".")[0], component_class[1]
    yield ""
    if part.why:
        yield _comment(part.why, indent="    ")
    if brings_weights(part.choice):
        yield '    with torch.device("meta"):'
        if library == "transformers":
            kind = f"{class_name}.config_class"
            yield f"        config = {kind}.from_pretrained(source, subfolder={name!r})"
            yield f"        module = {class_name}(config).to(DTYPE)"
        else:
            yield f"        config = {class_name}.load_config(source, subfolder={name!r})"
            yield f"        module = {class_name}.from_config(config).to(DTYPE)"
    else:
        yield f"    module = {class_name}.from_pretrained("
        yield f"        source, subfolder={name!r}, dtype=DTYPE, **OPTIONS"
        yield "    ).eval().requires_grad_(False)"
    if part.fuse_qkv:
        yield "    fuse_qkv(module)"
    if Scheme.parse(part.scheme).quantizes:
        yield from _quantizing_lines(name, part.choice)
    if adapters:
        named = _literal([adapter.argument for adapter in adapters])
        yield textwrap.indent(f"attach_adapters(module, {named}, DTYPE)", "    ")
    home = "device" if runtime.offload == "none" else "'cpu'"
    yield f"    components[{name!r}] = module.to({home})"


def _quantizing_lines(name: str, choice: Choice) -> Iterator[str]:
    kept = f"KEPT[{name!r}]"
    if not choice.overrides:
        yield f"    layers = linear_layers(module, {kept})"
        yield f"    {_call(choice.scheme, 'layers')}"
        return
    yield f"    overridden = OVERRIDDEN[{name!r}]"
    yield f"    layers = linear_layers(module, [*{kept}, *sum(overridden.values(), [])])"
    yield f"    {_call(choice.scheme, 'layers')}"
    for override in choice.overrides:
        yield f"    {_call(override.scheme, f'overridden[{override.scheme!r}]')}"


def _call(scheme: str, layers: str) -> str:
    parsed = Scheme.parse(scheme)
    recipe = backend(parsed.backend).recipe(parsed.precision)
    arguments = "".join(f", {key}={value!r}" for key, value in recipe.arguments.items())
    return f"{recipe.function.__name__}(module, {layers}{arguments})"


def _functions(changed: Mapping[str, PlannedComponent], runtime: Runtime) -> Iterator[str]:
    called = {line.partition("(")[0] for line in _lever_lines(runtime)} - {"pipeline.to"}
    functions = {name: getattr(levers, name) for name in called}
    for part in changed.values():
        if part.fuse_qkv:
            functions["fuse_qkv"] = fuse_qkv
        for scheme in map(Scheme.parse, part.choice.schemes):
            if scheme.quantizes:
                function = backend(scheme.backend).recipe(scheme.precision).function
                functions[function.__name__] = function
    if any(Scheme.parse(part.scheme).quantizes for part in changed.values()):
        yield _LINEAR_LAYERS
    for _, function in sorted(functions.items()):
        yield inspect.getsource(function)
    # Only here, because it imports torch, which the planner does without until it writes.
    yield _module_body(import_module("autoquant.storage"))


def _module_body(module: ModuleType) -> str:
    """A module's definitions, without its docstring and imports."""
    source = inspect.getsource(module)
    tree = ast.parse(source)
    lines = source.splitlines()
    first = next(
        node for node in tree.body if not isinstance(node, ast.Expr | ast.Import | ast.ImportFrom)
    )
    start = first.lineno - 1
    while start > 0 and lines[start - 1].startswith("#"):
        start -= 1
    return "\n".join(lines[start:])


def _literal(value: Any) -> str:
    return pformat(value, width=96, sort_dicts=False)


_ASK_FOR_SOURCE = [
    "    if not source:",
    '        sys.exit("Planned from a pipeline in memory: pass the directory it is in.")',
]

_LINEAR_LAYERS = '''
def linear_layers(module, kept):
    """Paths of the Linear modules to quantize."""
    return [
        path
        for path, layer in module.named_modules()
        if isinstance(layer, torch.nn.Linear) and path not in kept
    ]
'''

_MAIN = '''
def main():
    """Load, draw the plan's images into images/loaded, and compare with the plan's own."""
    here = Path(__file__).resolve().parent
    pipeline = load_pipeline(*sys.argv[1:2])
    modules = [part for part in pipeline.components.values() if isinstance(part, torch.nn.Module)]
    if any(weight.is_meta for part in modules for weight in part.parameters()):
        print("weights: sequential offload hands them out one by one, so they are not weighed here")
    else:
        weights_gb = held_bytes(*modules) / 2**30
        print(f"weights: {weights_gb:.6f} GB, planned {WEIGHTS_GB:.6f} GB")
    if torch.accelerator.is_available():
        # What loading took is no part of what a call takes.
        torch.accelerator.empty_cache()
        torch.accelerator.reset_peak_memory_stats()
    images = []
    for batch in BATCHES:
        generators = [torch.Generator("cpu").manual_seed(seed) for _, seed in batch]
        prompts = [prompt for prompt, _ in batch]
        drawn = pipeline(prompt=prompts, generator=generators, output_type="pil", **CALL)
        if hasattr(drawn, "frames"):
            images += [video[0] for video in drawn.frames]
        else:
            images += drawn.images if hasattr(drawn, "images") else drawn.image
    if torch.accelerator.is_available():
        peak_gb = torch.accelerator.max_memory_reserved() / 2**30
        print(f"peak reserved: {peak_gb:.6f} GB, planned {PEAK_GB:.6f} GB")
    folder = here / "images" / "loaded"
    folder.mkdir(parents=True, exist_ok=True)
    differences = []
    for number, image in enumerate(images):
        image.save(folder / f"{number:04d}.png")
        planned = here / "images" / "planned" / f"{number:04d}.png"
        if planned.exists():
            ours, theirs = (np.asarray(each, dtype=int) for each in (image, Image.open(planned)))
            differences.append(int(np.abs(ours - theirs).max()))
    print(f"images: {len(images)} drawn, {len(differences)} compared with the plan's own")
    if differences:
        print(f"largest pixel difference: {max(differences)} of 255")


if __name__ == "__main__":
    main()
'''
