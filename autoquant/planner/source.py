"""Where a pipeline comes from: the embedded demo, a local directory, or a hub repository.

Nothing here imports torch: what is wrong with a model path is said before anything heavy is loaded.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import re
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from autoquant import demo
from autoquant.errors import InputError, UnsupportedPipeline, first_line
from autoquant.metrics.download import require_reachable

DEMO = "demo"
IN_MEMORY = "<in memory>"
_MODEL_INDEX = "model_index.json"
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_REPOSITORY_ID = re.compile(r"[A-Za-z0-9][\w.\-]*/[A-Za-z0-9][\w.\-]*")
_IF_YOU_TRUST_IT = "Pass --trust-remote-code (trust_remote_code=True) if you trust its authors."
_COMMIT = re.compile(r"[0-9a-f]{40}")
_REPOSITORY_TYPES = {"diffusers", "transformers"}


class PipelineSource(BaseModel):
    """A pipeline as it is named in a plan.

    Attributes:
        location: ``demo``, a hub id, or a directory (``~`` stands for the home directory).
        revision: The hub commit, if the location is a hub id.
        variant: The weight variant, like ``fp16``.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    location: str
    revision: str | None = None
    variant: str | None = None


class ModelIndex(BaseModel):
    """What ``model_index.json`` says: the pipeline class, each component's library and class."""

    model_config = ConfigDict(frozen=True)

    class_name: str
    components: dict[str, tuple[str, str]]

    def model_class(self, component: str) -> type[Any]:
        """The diffusers or transformers class of ``component``.

        A library that is neither is the folder of a pipeline in diffusers that brings the class.

        Raises:
            UnsupportedPipeline: The class is not one of an installed diffusers or transformers.
        """
        library, class_name = self.components[component]
        in_pipelines = library not in _REPOSITORY_TYPES
        module = importlib.import_module(
            f"diffusers.pipelines.{library}" if in_pipelines else library
        )
        library = "diffusers" if in_pipelines else library
        found = getattr(module, class_name, None)
        if not isinstance(found, type):
            raise UnsupportedPipeline(
                f"{component} is a {library}.{class_name}, which the installed {library} does not "
                f"have; upgrade it: pip install -U {library}"
            )
        return found


def find_source(
    model: str, *, revision: str | None = None, variant: str | None = None
) -> PipelineSource:
    """Tell what a user's MODEL names.

    Raises:
        InputError: It is neither ``demo``, nor an existing directory, nor shaped like a hub id.
    """
    if model == DEMO and not Path(model).exists():
        return PipelineSource(location=DEMO)
    path = Path(model).expanduser()
    if model and path.is_dir():
        return PipelineSource(location=without_home(path.resolve()), variant=variant)
    if path.is_file():
        raise UnsupportedPipeline(
            f"{model} is a single file; pass a diffusers directory or a hub id instead."
        )
    if _REPOSITORY_ID.fullmatch(model):
        return PipelineSource(location=model, revision=revision, variant=variant)
    raise InputError(
        f"No model at {model!r}: it is no directory, and a hub id looks like 'owner/name'. "
        "'demo' names the embedded demo pipeline."
    )


def local_directory(source: PipelineSource, *, download: bool = True) -> Path:
    """The directory that holds ``source``, fetched from the hub if need be.

    Args:
        source: What to find.
        download: Whether to fetch the weights too, or only ``model_index.json``.

    Raises:
        InputError: The directory or repository does not exist, is gated, or cannot be reached.
    """
    if source.location == DEMO:
        return demo.pipeline_directory()
    if source.location == IN_MEMORY:
        raise InputError(
            "The plan was made from a pipeline in memory; say where its weights are: "
            "plan.load(source=DIRECTORY)."
        )
    path = Path(source.location).expanduser()
    if path.is_dir():
        return path
    if path.is_absolute() or not _REPOSITORY_ID.fullmatch(source.location):
        raise InputError(
            f"The model directory {source.location} does not exist on this machine; "
            "pass its new place as the source."
        )
    return _from_hub(source, download=download)


def at_commit(source: PipelineSource, directory: Path) -> PipelineSource:
    """``source`` with the commit that a hub snapshot in ``directory`` was made of."""
    if _REPOSITORY_ID.fullmatch(source.location) and _COMMIT.fullmatch(directory.name):
        return source.model_copy(update={"revision": directory.name})
    return source


def read_model_index(directory: Path) -> ModelIndex:
    """Read and check a pipeline directory's ``model_index.json``; nothing of it is run.

    Raises:
        UnsupportedPipeline: The file is missing or damaged, or names code that is not part of
            diffusers or transformers.
    """
    path = directory / _MODEL_INDEX
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UnsupportedPipeline(
            f"{directory} is no diffusers pipeline: it has no {_MODEL_INDEX}."
        ) from error
    except (OSError, ValueError, RecursionError) as error:
        raise UnsupportedPipeline(f"{path} cannot be read: {error}.") from error
    if not isinstance(entries, dict):
        raise UnsupportedPipeline(f"{path} must hold a JSON object.")
    class_name = entries.get("_class_name")
    if not isinstance(class_name, str) or not _IDENTIFIER.fullmatch(class_name):
        raise UnsupportedPipeline(
            f"{path} names the pipeline class {class_name!r}, which is not part of diffusers. "
            f"Nothing of it was run. {_IF_YOU_TRUST_IT}"
        )
    return ModelIndex(class_name=class_name, components=_read_components(path, entries))


def _read_components(path: Path, entries: dict[str, Any]) -> dict[str, tuple[str, str]]:
    components: dict[str, tuple[str, str]] = {}
    for name, entry in entries.items():
        if name.startswith("_") or not (isinstance(entry, list) and len(entry) == 2):
            continue
        library, class_name = entry
        if library is None or class_name is None or not any(isinstance(x, str) for x in entry):
            continue
        if not all(isinstance(x, str) and _IDENTIFIER.fullmatch(x) for x in (name, *entry)):
            raise UnsupportedPipeline(f"{path}: the component {name!r} is damaged: {entry!r}.")
        if library not in _REPOSITORY_TYPES and not _is_pipeline_module(library):
            raise UnsupportedPipeline(
                f"{path}: the component {name!r} comes from {library!r}, which is not part of "
                f"diffusers or transformers. Nothing of it was run. {_IF_YOU_TRUST_IT}"
            )
        components[name] = (library, class_name)
    return components


def _is_pipeline_module(name: str) -> bool:
    spec = importlib.util.find_spec("diffusers")
    if spec is None or not spec.submodule_search_locations:
        return False
    return (Path(spec.submodule_search_locations[0]) / "pipelines" / name).is_dir()


def _from_hub(source: PipelineSource, *, download: bool) -> Path:
    from huggingface_hub import constants, hf_hub_download, try_to_load_from_cache
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    cached = try_to_load_from_cache(source.location, _MODEL_INDEX, revision=source.revision)
    if cached is None and not constants.HF_HUB_OFFLINE:
        # The hub's own client retries for half a minute before it says so.
        require_reachable(
            constants.ENDPOINT, "check the network, or pass a local directory.", InputError
        )
    try:
        if not download:
            index = hf_hub_download(source.location, _MODEL_INDEX, revision=source.revision)
            return Path(index).parent
        from diffusers import DiffusionPipeline

        return Path(
            DiffusionPipeline.download(
                source.location,
                revision=source.revision,
                variant=source.variant,
                use_safetensors=True,
            )
        )
    except LocalEntryNotFoundError as error:
        raise InputError(
            f"{source.location} is not in the local cache and the hub cannot be reached; "
            "check the network, or pass a local directory."
        ) from error
    except (HfHubHTTPError, HFValidationError, OSError, ValueError) as error:
        raise InputError(
            f"Cannot get {source.location} from the hub: {first_line(error)} "
            "(gated repositories need `hf auth login`)."
        ) from error


def without_home(path: Path) -> str:
    """``path`` as text, with ``~`` for the home directory, so that plans name no user."""
    home = Path.home()
    return f"~/{path.relative_to(home)}" if path.is_relative_to(home) else str(path)
