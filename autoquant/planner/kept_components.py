"""The components of the last candidate, for the next one to take."""

from __future__ import annotations

from collections.abc import Iterable

from autoquant.planner.building import BuiltComponent, BuiltPipeline
from autoquant.planner.candidate import Candidate, Runtime
from autoquant.search_spaces.scheme import Choice


class KeptComponents:
    """What need not be loaded and quantized again.

    Components are loaded in one order. Where the first ones of a candidate are those of the last
    one, all that was measured until they were there holds again. Only what nothing has touched
    since is kept: levers put hooks, compiled code or other kernels into the modules. Where nothing
    is counted, any component can be taken, whatever was loaded before it.
    """

    def __init__(self) -> None:
        self._components: tuple[BuiltComponent, ...] = ()
        self._are_counted = False

    @property
    def held_bytes(self) -> int:
        """Bytes that are kept."""
        return sum(component.held_bytes for component in self._components)

    def keep(self, built: BuiltPipeline, *, are_counted: bool) -> None:
        """Keep what another candidate can have.

        Args:
            built: A pipeline that was built.
            are_counted: Whether its peaks were counted from the first component on.
        """
        self._components = built.components if _is_untouched(built.runtime) else ()
        self._are_counted = are_counted

    def drop(self) -> None:
        """Keep nothing."""
        self._components = ()

    def beginning(self, names: Iterable[str], candidate: Candidate) -> tuple[BuiltComponent, ...]:
        """The first components of ``candidate``, as far as they are kept; the others are dropped.

        Args:
            names: The components in the order in which they are loaded.
            candidate: What is built next.
        """
        first = []
        for name, kept in zip(names, self.matching(candidate), strict=False):
            if name != kept.name:
                break
            first.append(kept)
        self._components = tuple(first) if self._are_counted else ()
        return self._components

    def matching(self, candidate: Candidate) -> tuple[BuiltComponent, ...]:
        """All components of ``candidate`` that are kept; the others are dropped."""
        runtime = candidate.runtime
        self._components = tuple(
            kept
            for kept in self._components
            if _is_untouched(runtime)
            and (kept.choice, kept.compute_dtype)
            == (candidate.components.get(kept.name, Choice()), runtime.compute_dtype)
        )
        return self._components


def _is_untouched(runtime: Runtime) -> bool:
    return runtime == Runtime(compute_dtype=runtime.compute_dtype)
