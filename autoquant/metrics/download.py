"""Whether a server answers, found out in seconds before a library retries for a minute."""

from __future__ import annotations

import urllib.error
import urllib.request

from autoquant.errors import InputError, MetricUnavailable

_TIMEOUT_S = 3.0


def require_reachable(
    url: str, way_out: str, error_type: type[InputError] = MetricUnavailable
) -> None:
    """Ask ``url`` for a sign of life; an answer that refuses the request is one.

    Raises:
        InputError: Nothing answers; of ``error_type``, and its message ends with ``way_out``.
    """
    request = urllib.request.Request(url, method="HEAD")
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT_S):
            return
    except urllib.error.HTTPError:
        return
    except OSError as error:  # URLError and timeouts are OSErrors
        raise error_type(f"{url} does not answer ({error}); {way_out}") from error
