"""How likely options are to run, from which candidates ran and which failed.

A failure is blamed on what took part in it and in nothing that ran, in equal parts.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from math import prod

import numpy as np

from autoquant.planner.axes import Axis
from autoquant.planner.effects import Floats

# What alone is to blame for one failure runs the next time.
_CHANCE_AFTER_FAILURE = 1 / 3

Place = tuple[int, ...]
"""Where a candidate stands on each axis."""
Labels = Sequence[str]
"""What is to blame, for each option of an axis."""


def chances_to_run(
    axes: Sequence[Axis],
    ran: Sequence[Place],
    lost: Sequence[Place],
    faulty: Sequence[Place],
) -> list[Floats]:
    """For each axis the chance of each option.

    Args:
        axes: The axes.
        ran: What was measured.
        lost: What failed or is under way: each option is to blame for itself.
        faulty: What failed for itself, so that what is like it is expected to fail too.
    """
    options = [[[str(option) for option in range(len(axis.options))]] for axis in axes]
    alike = [axis.failing_alike for axis in axes]
    return [
        np.minimum(itself, kin)
        for itself, kin in zip(
            _chances(options, ran, lost), _chances(alike, ran, faulty), strict=True
        )
    ]


def _chances(
    labels: Sequence[Sequence[Labels]], ran: Sequence[Place], failed: Sequence[Place]
) -> list[Floats]:
    """The chance of each option by the blame on its labels, one axis after the other."""
    good = [[{kind[at[axis]] for at in ran} for kind in kinds] for axis, kinds in enumerate(labels)]
    blame = defaultdict[tuple[int, int, str], float](float)
    for at in failed:
        suspects = [
            (axis, number, kind[at[axis]])
            for axis, kinds in enumerate(labels)
            for number, kind in enumerate(kinds)
            if kind[at[axis]] not in good[axis][number]
        ]
        for suspect in suspects:
            blame[suspect] += 1 / len(suspects)
    return [
        np.array(
            [
                prod(
                    _CHANCE_AFTER_FAILURE ** blame[axis, number, label]
                    for number, label in enumerate(of_option)
                )
                for of_option in zip(*kinds, strict=True)
            ]
        )
        for axis, kinds in enumerate(labels)
    ]
