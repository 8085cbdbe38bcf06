"""The images of the other candidates, for a viewer to compare with the unquantized ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from autoquant.errors import InputError
from autoquant.planner.plan import Plan
from autoquant.planner.report.evidence import CandidateImages, Evidence
from autoquant.planner.report.pictures import Gallery, Picture, Quality, encode_pair
from autoquant.planner.report.points import Point, key_of, points_of
from autoquant.planner.report.scores import score_table

EMBEDDED_CHARACTERS = 24 * 2**20
"""Candidates are embedded, the best first, until their data URIs have this length together."""


@dataclass(frozen=True)
class AlternativePicture:
    """One sample as another candidate drew it, its scores in words."""

    picture: Picture
    caption: str


@dataclass(frozen=True)
class AlternativeImages:
    """The samples that one candidate drew; all of them, unless it was stopped early."""

    point: Point
    pictures: tuple[AlternativePicture, ...]

    @property
    def by_index(self) -> dict[int, AlternativePicture]:
        """The pictures by their sample."""
        return {each.picture.pair.index: each for each in self.pictures}


@dataclass(frozen=True)
class Alternatives:
    """The candidates that are shown, least loss first; the names of those without room."""

    shown: tuple[AlternativeImages, ...]
    left_out: tuple[str, ...]


def make_alternatives(evidence: Evidence, gallery: Gallery) -> Alternatives:
    """Encode what other candidates drew of the samples in ``gallery``, bounded in size.

    A candidate of which an image is missing or damaged is not among them.
    """
    points = {point.key: point for point in points_of(evidence.plan)}
    wanted = [picture.pair.index for picture in gallery.pictures]
    shown: list[AlternativeImages] = []
    left_out: list[str] = []
    left = EMBEDDED_CHARACTERS
    for images in evidence.candidates if wanted else ():
        point = points[key_of(images.place)]
        pictures = () if left_out else _pictures(evidence.plan, images, wanted, gallery.quality)
        size = sum(len(each.picture.planned) + len(each.picture.difference) for each in pictures)
        if left_out or size > left:
            left_out.append(point.name)
        elif pictures:
            left -= size
            shown.append(AlternativeImages(point, pictures))
    return Alternatives(tuple(sorted(shown, key=lambda each: each.point.loss)), tuple(left_out))


def _pictures(
    plan: Plan, images: CandidateImages, wanted: Sequence[int], quality: Quality
) -> tuple[AlternativePicture, ...]:
    measured = plan.pareto[images.place].measured
    table = score_table(plan, measured)
    drawn = len(plan.workload.samples) - measured.undrawn_images
    try:
        return tuple(
            AlternativePicture(encode_pair(images.pairs[index], quality), table.caption(index))
            for index in wanted
            if index < drawn
        )
    except InputError:
        return ()
