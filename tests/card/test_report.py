from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from tests.card.report import card_table


def report(name: str, outcome: str, **more: Any) -> Any:
    given = {"when": "call", "keywords": {"gpu": 1}, "user_properties": [], "longrepr": None}
    return SimpleNamespace(nodeid=f"tests/card/x.py::{name}", outcome=outcome, **given | more)


def test_the_table_says_what_works_what_fails_and_what_was_not_run() -> None:
    crash = SimpleNamespace(reprcrash=SimpleNamespace(message="AssertionError: 3 | 4\nassert 3"))
    stats = {
        "passed": [
            report("a", "passed", user_properties=[("error", 0.25), ("trials", 9)]),
            report("a", "passed", when="teardown"),
            report("on_a_cpu", "passed", keywords={}),
        ],
        "failed": [report("b", "failed", longrepr=crash)],
        "skipped": [report("c", "skipped", longrepr=("x.py", 1, "Skipped: no nvcc"))],
    }
    assert list(card_table(stats)) == [
        "| test | result | figures |",
        "|---|---|---|",
        "| `a` | works | error 0.25, trials 9 |",
        "| `b` | **fails**: AssertionError: 3 \\| 4 |  |",
        "| `c` | not run: no nvcc |  |",
    ]


def test_there_is_no_table_without_a_card() -> None:
    stats = {"skipped": [report("c", "skipped", longrepr=("x.py", 1, "Skipped: no card"))]}
    assert not list(card_table(stats))
