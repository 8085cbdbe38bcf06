"""Whether images still follow their prompts, which a distance from the reference cannot tell."""

from __future__ import annotations

from collections.abc import Mapping

from autoquant.metrics.score import MetricScore

CLIP_DELTA = "clip_delta"

# CLIP points (100 times a cosine) that say nothing. Candidates of 8 and 4 bits that people cannot
# tell from the original lie within half a point of it; a broken one falls by several.
_POINTS_OF_NO_ACCOUNT = 0.5


def lost_prompts(fidelity: Mapping[str, MetricScore]) -> str | None:
    """What to warn of if the images fit their prompts worse than the reference's do.

    The fall must be of account, and its 95% interval must lie below zero: single images rise and
    fall. Without a CLIP score, or with one image only, nothing is known and nothing is said.
    """
    score = fidelity.get(CLIP_DELTA)
    if score is None or score.low is None or score.high is None:
        return None
    if score.high >= 0 or score.mean > -_POINTS_OF_NO_ACCOUNT:
        return None
    return (
        f"the images follow their prompts less: CLIP falls by {-score.mean:.2g} points "
        f"({-score.high:.2g} to {-score.low:.2g}), whatever their distance from the reference"
    )
