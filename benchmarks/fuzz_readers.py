"""Feed every reader of outside data with damaged files, and count what it does with them.

Prints for each kind how many were read, how many were refused with an InputError, and how many
raised anything else; ends with status 1 if any did. Run: python benchmarks/fuzz_readers.py
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections import Counter
from pathlib import Path

from hypothesis import HealthCheck, given, settings

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.outside_data import is_read_or_refused, readers
from tests.planner.test_plan import a_plan


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--examples", type=int, default=10_000, help="of each kind")
    examples = parser.parse_args().examples
    print("| Outside data | Files | Read | Refused | Anything else |\n|---|---|---|---|---|")
    escaped = 0
    with tempfile.TemporaryDirectory() as place:
        for kind, (reader, damaged) in readers(Path(place), json.loads(a_plan().to_json())).items():
            counts: Counter[str] = Counter()

            @settings(
                max_examples=examples,
                deadline=None,
                database=None,
                derandomize=True,
                suppress_health_check=list(HealthCheck),
            )
            @given(content=damaged)
            def feed(content: bytes) -> None:
                try:
                    accepted = is_read_or_refused(reader, content, Path(place))  # noqa: B023
                except Exception as error:  # noqa: BLE001
                    counts["else"] += 1  # noqa: B023
                    print(f"{kind}: {type(error).__name__}: {error}: {content[:200]!r}")  # noqa: B023
                else:
                    counts["read" if accepted else "refused"] += 1  # noqa: B023

            feed()
            escaped += counts["else"]
            print(
                f"| {kind} | {counts.total()} | {counts['read']} | {counts['refused']} | "
                f"{counts['else']} |",
                flush=True,
            )
    return 1 if escaped else 0


if __name__ == "__main__":
    raise SystemExit(main())
