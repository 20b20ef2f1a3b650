"""How many cases a property test or a crash test runs: few in the gate, the full count in the exam.

And what a whole exam cannot do without.
"""

import os
import shutil
from typing import NoReturn

import pytest

WITHOUT = "FEATURESTORE_EXAM_WITHOUT"
"""What a whole exam is allowed to lack, with commas between: an exam without it is green and has not looked at it."""


def exam_scale() -> float:
    """Fraction of the exam's counts to run; 0 in the gate (`make test`), 1 in `make exam`."""
    return float(os.environ.get("FEATURESTORE_EXAM_SCALE", "0"))


def exam_seed() -> int:
    """What an exam draws its cases from; always the same in the gate."""
    return int(os.environ.get("FEATURESTORE_EXAM_SEED", "0"))


def require_programs(what: str, *programs: str, remedy: str) -> None:
    """Skip a test where programs are missing; in a whole exam fail it, unless `FEATURESTORE_EXAM_WITHOUT` names what is missing."""
    if missing := [program for program in programs if shutil.which(program) is None]:
        lacking(what, f"{' and '.join(missing)} not found", remedy)


def lacking(what: str, why: str, remedy: str) -> NoReturn:
    """End a test that cannot run for want of something: skipped; in a whole exam failed, unless that is waived."""
    waived = [name.strip() for name in os.environ.get(WITHOUT, "").split(",")]
    if exam_scale() < 1 or what in waived:
        pytest.skip(f"{what}: {why}")
    pytest.fail(f"{what}: {why}. A whole exam needs it. Install it: {remedy}; or set {WITHOUT}={what} to do without.")


def cases(full: int, gate: int) -> int:
    """The number of cases to run now: `gate` of them, or the exam's share of `full` if that is more."""
    return max(gate, round(full * exam_scale()))
