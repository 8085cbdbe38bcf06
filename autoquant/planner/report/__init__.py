"""The report: one HTML file that shows a plan with its evidence, and lets a viewer judge it."""

from autoquant.planner.report.document import write_report

__all__ = ["write_report"]
