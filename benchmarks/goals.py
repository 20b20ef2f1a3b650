"""Goals of a benchmark beside what was measured: a table to paste, with the spread over the runs. Not here: what is measured."""

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Goal:
    """What a figure should reach.

    Args:
        what: The figure, with its unit.
        goal: To be reached by the median.
        stretch: What would be better still, if that is said.
        is_most: It should be no more than that; else no less.
        digits: After the point.
    """

    what: str
    goal: float
    stretch: float | None = None
    is_most: bool = False
    digits: int = 2

    def said(self, value: float) -> str:
        return f"{value:,.{self.digits}f}"

    def verdict(self, value: float) -> str:
        """Missed, met, or met with the stretch too."""
        if self.stretch is not None and self._reaches(value, self.stretch):
            return "stretch met"
        return "met" if self._reaches(value, self.goal) else "missed"

    def _reaches(self, value: float, bound: float) -> bool:
        return value <= bound if self.is_most else value >= bound


Found = tuple[Goal, Sequence[float]]
"""A goal, and its figure in each run."""


def table(found: Iterable[Found]) -> str:
    """Lines of a table: each figure's median and spread, its goal, and whether that is met."""
    lines = ["| | median (min to max) | runs | goal | stretch | |", "|---|---|---|---|---|---|"]
    for goal, values in found:
        middle, least, most = (goal.said(one) for one in (statistics.median(values), min(values), max(values)))
        bound = "at most" if goal.is_most else "at least"
        goals = f"{bound} {goal.said(goal.goal)} | {'' if goal.stretch is None else goal.said(goal.stretch)}"
        verdict = goal.verdict(statistics.median(values))
        lines.append(f"| {goal.what} | {middle} ({least} to {most}) | {len(values)} | {goals} | {verdict} |")
    return "\n".join(lines)
