"""How many cases a property test or a crash test runs: few in the gate, the full count in the exam."""

import os


def exam_scale() -> float:
    """Fraction of the exam's counts to run; 0 in the gate (`make test`), 1 in `make exam`."""
    return float(os.environ.get("FEATURESTORE_EXAM_SCALE", "0"))


def exam_seed() -> int:
    """What an exam draws its cases from; always the same in the gate."""
    return int(os.environ.get("FEATURESTORE_EXAM_SEED", "0"))


def cases(full: int, gate: int) -> int:
    """The number of cases to run now: `gate` of them, or the exam's share of `full` if that is more."""
    return max(gate, round(full * exam_scale()))
