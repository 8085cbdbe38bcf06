"""Put the report together: one HTML file that needs no network."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from autoquant.errors import InputError
from autoquant.files import write_text
from autoquant.planner.candidate import Candidate
from autoquant.planner.quantities import gigabytes, seconds
from autoquant.planner.report.alternatives import Alternatives, make_alternatives
from autoquant.planner.report.choices import (
    component_rows,
    failure_groups,
    ruled_out,
    struck_groups,
)
from autoquant.planner.report.difference import COLOURS, LEGEND, position
from autoquant.planner.report.evidence import PLAN_NAME, SCRIPT_NAME, Evidence, read_evidence
from autoquant.planner.report.figures import figures_of, headline, lead
from autoquant.planner.report.layers import layer_charts
from autoquant.planner.report.levers import NAMES, lever_rows, struck_levers, varying_levers
from autoquant.planner.report.pictures import Gallery, Picture, make_gallery
from autoquant.planner.report.plot import plots_of
from autoquant.planner.report.points import points_of
from autoquant.planner.report.scores import score_table, worst_first

REPORT_NAME = "report.html"
_PAGE = "page"
# One script in the page; the first holds what the others share.
_SCRIPTS = ("report.js", "plots.js", "candidates.js", "images.js", "blind_test.js")
# Images after these are folded away: the worst are what decides.
_SHOWN_AT_ONCE = 4


def write_report(directory: Path, out: Path | None = None) -> Path:
    """Write the report of a directory that ``autoquant suggest`` wrote.

    Args:
        directory: Holds ``plan.json`` and, where they are to be shown, the images.
        out: The HTML file; by default ``report.html`` in ``directory``.

    Returns:
        The file that was written.

    Raises:
        InputError: The directory or its plan cannot be read, or the file cannot be written.
    """
    path = out or directory / REPORT_NAME
    if path.exists() and path.suffix.lower() not in {".html", ".htm"}:
        raise InputError(f"The output {path} is there and is no HTML file; choose another name.")
    evidence = read_evidence(directory)
    gallery = make_gallery(evidence)
    return write_text(path, render(evidence, gallery, make_alternatives(evidence, gallery)))


def render(evidence: Evidence, gallery: Gallery, alternatives: Alternatives) -> str:
    """The report as HTML."""
    plan = evidence.plan
    style, script = _asset("report.css"), "\n".join(map(_asset, _SCRIPTS))
    pictures = _worst_first(evidence, gallery)
    return (
        _environment()
        .get_template("report.html.jinja")
        .render(
            plan=plan,
            candidate=Candidate(components=plan.candidate.components, runtime=plan.runtime),
            content_security_policy=_policy(style, script),
            style=Markup(style),
            script=Markup(script),
            headline=headline(plan),
            lead=list(lead(plan)),
            figures=figures_of(plan),
            points=points_of(plan),
            plots=plots_of(plan),
            components=component_rows(plan),
            layer_charts=layer_charts(plan),
            levers=lever_rows(plan),
            lever_names=[NAMES.get(lever, lever) for lever in varying_levers(plan)],
            struck=struck_groups(plan),
            struck_levers=struck_levers(plan),
            failures=failure_groups(plan),
            ruled_out=ruled_out(plan),
            scores=score_table(plan),
            pictures=pictures,
            can_ask=_can_ask(pictures, alternatives),
            shown_at_once=_SHOWN_AT_ONCE,
            gallery=gallery,
            alternatives=alternatives,
            absent=evidence.absent,
            colours=COLOURS,
            legend=[(value, position(value)) for value in LEGEND],
            plan_name=PLAN_NAME,
            script_name=SCRIPT_NAME,
            loader_script=evidence.script,
        )
    )


def _worst_first(evidence: Evidence, gallery: Gallery) -> list[Picture]:
    by_index = {picture.pair.index: picture for picture in gallery.pictures}
    return [by_index[index] for index in worst_first(evidence.plan) if index in by_index]


def _can_ask(pictures: Sequence[Picture], alternatives: Alternatives) -> bool:
    """Whether there are two images that the blind test can ask about."""
    others = (each.picture for images in alternatives.shown for each in images.pictures)
    return any(not picture.identical for picture in (*pictures, *others))


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader(__package__ or "", _PAGE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_without_home,
    )
    environment.filters.update(gigabytes=gigabytes, seconds=seconds, unbroken=_unbroken)
    return environment


def _unbroken(text: str) -> str:
    """Keep each number and its unit on one line."""
    return re.sub(r"(?<=\d) (?=(GB|MB|ms|s|min)\b)", "\N{NO-BREAK SPACE}", text)


def _without_home(value: object) -> object:
    """Reports are passed on, and reasons of failures name files: a home becomes ``~``."""
    home = str(Path.home())
    if isinstance(value, Markup) or not isinstance(value, str) or len(home) < 2:
        return value
    return value.replace(home, "~")


def _asset(name: str) -> str:
    return (resources.files(__package__ or "") / _PAGE / name).read_text(encoding="utf-8")


def _policy(style: str, script: str) -> str:
    """Nothing is loaded, and nothing runs but the script of this package."""
    return "; ".join(
        [
            "default-src 'none'",
            "img-src data:",
            f"style-src {_hash(style)}",
            f"script-src {_hash(script)}",
            "base-uri 'none'",
            "form-action 'none'",
        ]
    )


def _hash(text: str) -> str:
    digest = hashlib.sha256(text.encode("utf-8")).digest()
    return f"'sha256-{base64.b64encode(digest).decode('ascii')}'"
