"""Compare ways to search, all on the same recorded table.

Each method gets the same random budgets (memory and latency) and pays the seconds that the recorded
trials took; asking again for a candidate is free. Prints Markdown tables and draws
docs/searching.svg:

    OMP_NUM_THREADS=1 python benchmarks/search_methods.py --processes 2
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from pathlib import Path
from statistics import fmean, median

sys.path.insert(0, str(Path(__file__).parent.parent))

import numpy as np

from autoquant.planner.budget import Budget
from autoquant.planner.selection import is_feasible
from benchmarks.curves import Curve, draw_curves
from benchmarks.recorded_table import TABLE, RecordedTable
from benchmarks.rules_of_thumb import RULES
from benchmarks.search_runs import GP, METHODS, OURS, Run, is_within, random_budgets
from benchmarks.shares import compare

PICTURE = Path(__file__).parent.parent / "docs" / "searching.svg"

SEEDS = 20
BUDGETS = 200
# Proposals of the GP sampler take so long that it gets the first budgets only.
GP_BUDGETS = 40
# Of the cost of measuring every candidate.
SHARES = (0.02, 0.05, 0.1)
COSTLY = 0.05


def run_one(table: RecordedTable, method: str, place: int, seed: int, target: float | None) -> Run:
    """One method under one of the random budgets; others stop at ``target``, autoquant's loss."""
    budget, best = _budgets(table)[place]
    ledger = METHODS[method](table, budget, seed, target)
    return Run(method, place, best, tuple(ledger.steps), ledger.repeats, ledger.rest_s(target))


@cache
def _budgets(table: RecordedTable) -> list[tuple[Budget, float]]:
    return random_budgets(table, BUDGETS)


@cache
def _table(path: Path) -> RecordedTable:
    return RecordedTable(path)


def _run_at(path: Path, method: str, place: int, seed: int, target: float | None) -> Run:
    return run_one(_table(path), method, place, seed, target)


def run_all(
    path: Path, methods: Sequence[str], budgets: int, seeds: int, processes: int
) -> list[Run]:
    """autoquant under every budget, then each method with ``seeds`` of the 20 seeds in turn."""
    with ProcessPoolExecutor(processes) as pool:
        tasks = [(path, OURS, place, place % SEEDS, None) for place in range(budgets)]
        ours = list(pool.map(_run_at, *zip(*tasks, strict=True), chunksize=5))
        found = {run.budget: run.loss for run in ours}
        tasks = [
            (path, method, place, (place * seeds + number) % SEEDS, found[place])
            for method in methods
            for place in range(min(budgets, GP_BUDGETS if method == GP else budgets))
            for number in range(1 if method == GP else seeds)
        ]
        return [*ours, *(pool.map(_run_at, *zip(*tasks, strict=True)) if tasks else ())]


def methods_table(runs: Sequence[Run], table: RecordedTable) -> str:
    """One line a method: how often it is within 1% of the best, after what cost."""
    everything_s = _everything_s(table)
    ours = {run.budget: run for run in runs if run.method == OURS}
    lines = [
        "| method | runs | measured | asked again | within 1% at autoquant's cost "
        f"| {' | '.join(f'at {share:.0%} of exhaustive' for share in SHARES)} |",
        "|---|---|---|---|---|" + "---|" * len(SHARES),
    ]
    for method, mine in _by_method(runs).items():
        same = [is_within(run.loss_at(ours[run.budget].seconds), run.best) for run in mine]
        cells = [
            method,
            f"{len(mine)}",
            f"{fmean(len(run.steps) for run in mine):.0f}",
            f"{fmean(run.repeats for run in mine):.0f}",
            f"{fmean(same):.1%}",
            *(_within_at(share * everything_s, mine) for share in SHARES),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _within_at(seconds: float, runs: Sequence[Run]) -> str:
    """Blank where the method was stopped before."""
    if runs[0].method != OURS and fmean(run.seconds for run in runs) < seconds:
        return ""
    return f"{fmean(is_within(run.loss_at(seconds), run.best) for run in runs):.1%}"


def shares_table(runs: Sequence[Run], table: RecordedTable) -> str:
    """One line a method: what it pays to find as much as autoquant, and autoquant's share of it."""
    everything_s = _everything_s(table)
    by_method = _by_method(runs)
    lines = [
        "| method | its cost | stopped before | autoquant's share, whole search | in the median "
        "| until found | in the median | at most |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for method in by_method:
        if method == OURS:
            continue
        compared = compare(by_method[method], by_method[OURS])
        cells = [
            method,
            f"{compared.paid_s / everything_s:.1%} (≥ {compared.stopped_s / everything_s:.1%})",
            f"{compared.never} of {compared.runs}",
            *(
                estimate.text
                for share in (compared.whole, compared.found)
                for estimate in (share.of_sums, share.in_median)
            ),
            f"{compared.most:.0%}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _by_method(runs: Sequence[Run]) -> Mapping[str, list[Run]]:
    found = {method: [run for run in runs if run.method == method] for method in METHODS}
    return {method: mine for method, mine in found.items() if mine}


def _everything_s(table: RecordedTable) -> float:
    """What it costs to measure every candidate."""
    return float(sum(table.entries["columns"]["seconds"]))


def rules_table(
    runs: Sequence[Run], table: RecordedTable, budgets: Sequence[tuple[Budget, float]]
) -> str:
    """One line a rule: how often its plan keeps the budget, and how it compares then."""
    ours = {run.budget: run.loss for run in runs if run.method == OURS}
    lines = [
        "| rule of thumb | keeps the budget | as good as autoquant | worse | better "
        "| loss, median | autoquant's there |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, rule in RULES.items():
        kept = []
        for place, (budget, _) in enumerate(budgets):
            planned = rule(table, budget)
            measured = None if planned is None else table.measure(planned)
            if measured is not None and is_feasible(measured, budget):
                kept.append((measured.loss, ours[place]))
        better = sum(our is None or rule_s < our for rule_s, our in kept)
        equal = sum(rule_s == our for rule_s, our in kept)
        middle = (_median_of(loss for loss, _ in kept), _median_of(o for _, o in kept))
        cells = [
            name,
            f"{len(kept) / len(budgets):.0%}",
            *(f"{n / len(budgets):.0%}" for n in (equal, len(kept) - better - equal, better)),
            *middle,
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _median_of(losses: Iterator[float | None]) -> str:
    known = [loss for loss in losses if loss is not None]
    return f"{median(known):.4f}" if known else ""


def curves(runs: Sequence[Run], table: RecordedTable) -> list[Curve]:
    """For each method the share of runs within 1% of the best after each share of the cost."""
    everything_s = _everything_s(table)
    found = []
    for method, mine in _by_method(runs).items():
        # A curve ends where the first run was stopped, unless the method ends by itself.
        ends = 1.0 if method == OURS else min(run.seconds for run in mine) / everything_s
        shares = [share for share in np.geomspace(0.002, 0.2, 60) if share <= ends]
        heights = [
            fmean(is_within(run.loss_at(share * everything_s), run.best) for run in mine)
            for share in shares
        ]
        found.append(Curve(method, tuple(zip(shares, heights, strict=True))))
    return found


def summary(runs: Sequence[Run], table: RecordedTable) -> str:
    """What autoquant reached."""
    everything_s = _everything_s(table)
    ours = [run for run in runs if run.method == OURS]
    costs = [run.seconds / everything_s for run in ours]
    within = fmean(is_within(run.loss, run.best) for run in ours)
    empty = [run.budget for run in ours if run.loss is None]
    costly = [run.budget for run, cost in zip(ours, costs, strict=True) if cost > COSTLY]
    keeping = sorted(
        sum(is_feasible(measured, _budgets(table)[place][0]) for measured in table.all_measured())
        for place in costly
    )
    return (
        f"autoquant: within 1% in {within:.1%} of {len(ours)} budgets; nothing that fits was found "
        f"in {len(empty)} {empty or ''}\n"
        f"cost: {fmean(costs):.1%} of exhaustive in the mean, {median(costs):.1%} in the median, "
        f"{max(costs):.1%} at most\n"
        f"more than {COSTLY:.0%} in {len(costly)} budgets; of the candidates "
        f"{', '.join(map(str, keeping)) or 'any'} keep them"
    )


def main() -> None:
    """Run everything."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--table", type=Path, default=TABLE)
    parser.add_argument("--budgets", type=int, default=BUDGETS)
    parser.add_argument("--seeds", type=int, default=1, help="seeds for each budget, of 20 in turn")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--only", nargs="*", help="methods to run")
    parser.add_argument("--picture", type=Path, default=PICTURE)
    arguments = parser.parse_args()
    table = RecordedTable(arguments.table)
    methods = [m for m in METHODS if m != OURS and m in (arguments.only or METHODS)]
    runs = run_all(
        arguments.table, methods, arguments.budgets, arguments.seeds, arguments.processes
    )
    budgets = _budgets(table)[: arguments.budgets]
    print(f"{len(table)} candidates, {_everything_s(table):.0f} s in all\n")
    print(methods_table(runs, table), end="\n\n")
    print(shares_table(runs, table), end="\n\n")
    print(rules_table(runs, table, budgets), end="\n\n")
    print(summary(runs, table))
    draw_curves(
        arguments.picture,
        curves(runs, table),
        x_label="seconds spent, as a share of measuring all candidates",
        y_label="share of runs within 1% of the least loss",
    )


if __name__ == "__main__":
    main()
