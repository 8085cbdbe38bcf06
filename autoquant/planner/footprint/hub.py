"""Headers and configs of a hub repository, by range requests: kilobytes instead of gigabytes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from autoquant.errors import InputError, first_line
from autoquant.planner.footprint.pipeline_shapes import read_directory, read_pipeline
from autoquant.planner.footprint.shapes import ModelShapes
from autoquant.planner.source import PipelineSource, local_directory, read_model_index

# One request then brings most headers whole: FLUX.1-dev's largest takes 0.1 MB.
_FIRST_BYTES = 1 << 17
_TIMEOUT_S = 20.0

_T = TypeVar("_T")


@dataclass
class HubRepository:
    """A repository at one commit; only the ranges that are asked for are transferred."""

    name: str
    commit: str
    sizes: Mapping[str, int]
    _beginnings: dict[str, bytes] = field(default_factory=dict)

    def read(self, path: str, offset: int, length: int) -> bytes:
        """Read a range.

        Raises:
            InputError: The file cannot be reached.
        """
        end = min(offset + length, self.sizes[path])
        if end <= _FIRST_BYTES:
            if path not in self._beginnings:
                self._beginnings[path] = self._fetch(path, 0, _FIRST_BYTES)
            return self._beginnings[path][offset:end]
        return self._fetch(path, offset, length)

    def _fetch(self, path: str, offset: int, length: int) -> bytes:
        from huggingface_hub import get_session, hf_hub_url
        from huggingface_hub.utils import (  # type: ignore[attr-defined]
            build_hf_headers,
            hf_raise_for_status,
        )

        length = min(length, self.sizes[path] - offset)
        if length <= 0:
            return b""
        headers = {**build_hf_headers(), "Range": f"bytes={offset}-{offset + length - 1}"}
        url = hf_hub_url(self.name, path, revision=self.commit)

        def request() -> bytes:
            with get_session().stream("GET", url, headers=headers, timeout=_TIMEOUT_S) as response:
                hf_raise_for_status(response)
                if response.status_code != 206 and offset:
                    raise InputError(f"{url} does not answer range requests.")
                received = bytearray()
                for chunk in response.iter_bytes():
                    received += chunk
                    if len(received) >= length:  # a server may ignore the range and send it all
                        break
                return bytes(received[:length])

        return _one_line(self.name, request)


def read_hub(source: PipelineSource) -> ModelShapes:
    """Read the shapes of a hub repository, from the local cache where the hub is not to be asked.

    Raises:
        InputError: It does not exist, is gated, cannot be reached, or its files are damaged.
        UnsupportedPipeline: It is no pipeline, or holds pickles only.
    """
    from huggingface_hub import HfApi, is_offline_mode

    if is_offline_mode():
        return _from_cache(source)
    info = _one_line(
        source.location,
        lambda: HfApi().model_info(
            source.location, revision=source.revision, files_metadata=True, timeout=_TIMEOUT_S
        ),
    )
    sizes = {file.rfilename: file.size or 0 for file in info.siblings or []}
    repository = HubRepository(source.location, info.sha or source.revision or "main", sizes)
    pinned = source.model_copy(update={"revision": repository.commit})
    index = read_model_index(local_directory(pinned, download=False))
    return read_pipeline(repository, index, source.variant)


def _from_cache(source: PipelineSource) -> ModelShapes:
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(source.location, "model_index.json", revision=source.revision)
    if not isinstance(found, str):
        raise InputError(
            f"{source.location} is not in the local cache and HF_HUB_OFFLINE forbids asking the "
            "hub; unset it, or pass a local directory."
        )
    return read_directory(Path(found).parent, source.variant)


def _one_line(location: str, ask: Callable[[], _T]) -> _T:
    """Ask the hub; whatever goes wrong becomes one line that says what to do."""
    # The base of all errors of the client's transport, whichever transport that is.
    from huggingface_hub.errors import (  # type: ignore[attr-defined]
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        HTTPError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        return ask()
    except GatedRepoError as error:
        raise InputError(
            f"{location} is gated: accept its terms on the hub, then run `hf auth login`."
        ) from error
    except RevisionNotFoundError as error:
        raise InputError(f"{location} has no such revision; leave --revision out.") from error
    except RepositoryNotFoundError as error:
        raise InputError(
            f"The hub has no {location}, or it is private: check the name, or run `hf auth login`."
        ) from error
    except (HfHubHTTPError, HFValidationError) as error:
        raise InputError(f"The hub refuses {location}: {first_line(error)}") from error
    except (HTTPError, OSError) as error:
        raise InputError(
            f"The hub cannot be reached for {location} ({first_line(error)}); check the network, "
            "or pass a local directory."
        ) from error
