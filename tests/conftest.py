from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True, scope="session")
def _cache_of_its_own() -> Iterator[None]:
    """No test reads or writes the measurements of whoever runs it."""
    with (
        tempfile.TemporaryDirectory(prefix="autoquant-cache-") as directory,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setitem(os.environ, "AUTOQUANT_CACHE", directory)
        yield
