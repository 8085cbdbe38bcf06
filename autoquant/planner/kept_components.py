"""The components of the last candidate, for the next one to begin with."""

from __future__ import annotations

from collections.abc import Iterable

from autoquant.planner.building import BuiltComponent, BuiltPipeline
from autoquant.planner.candidate import Candidate, Runtime
from autoquant.search_spaces.scheme import Choice


class KeptComponents:
    """What need not be loaded and quantized again.

    Components are loaded in one order. Where the first ones of a candidate are those of the last
    one, all that was measured until they were there holds again. Only what nothing has touched
    since is kept: levers put hooks, compiled code or other kernels into the modules.
    """

    def __init__(self) -> None:
        self._components: tuple[BuiltComponent, ...] = ()

    @property
    def held_bytes(self) -> int:
        """Bytes that are kept."""
        return sum(component.held_bytes for component in self._components)

    def keep(self, built: BuiltPipeline) -> None:
        """Keep what another candidate can begin with."""
        self._components = built.components if _is_untouched(built.runtime) else ()

    def drop(self) -> None:
        """Keep nothing."""
        self._components = ()

    def beginning(self, names: Iterable[str], candidate: Candidate) -> tuple[BuiltComponent, ...]:
        """The first components of ``candidate``, as far as they are kept; the others are dropped.

        Args:
            names: The components in the order in which they are loaded.
            candidate: What is built next.
        """
        runtime = candidate.runtime
        same: list[BuiltComponent] = []
        for name, kept in zip(names, self._components, strict=False):
            choice = candidate.components.get(name, Choice())
            wanted = (name, choice, runtime.compute_dtype)
            if wanted != (kept.name, kept.choice, kept.compute_dtype):
                break
            same.append(kept)
        self._components = tuple(same) if _is_untouched(runtime) else ()
        return self._components


def _is_untouched(runtime: Runtime) -> bool:
    return runtime == Runtime(compute_dtype=runtime.compute_dtype)
