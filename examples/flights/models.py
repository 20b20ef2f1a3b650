"""Two models of one question, will the flight leave late: what each promised offline, and what production gets.

Belongs here: the split by time, the model, its scores with intervals, and the table that sets them side by side. How
the leaky features are made is in `naive`; the training set comes from the feature store. Nothing here reads a store.

Ours is trained on the point-in-time correct training set, naive on the wide table joined by event time. For both, the
same flights are in the same part:

    training period                        a day    hold-out
    |----- 4 in 5 fitted, 1 in 5 offline -----|------|--- production ---|

A score over the hold-out with the features *as trained* stands between the two numbers, so that a drop can be told
apart: from offline to there the flights changed (the season), from there to production only the features did (the leak).
For ours the two are one: the training set holds what was servable. That serving returns it is not shown by these scores,
which are of the same frame, but by `parity`.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta

import numpy as np
import polars as pl
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import roc_auc_score
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from examples.flights.history import as_utc, midnight, naive_flights
from examples.flights.naive import NAIVE_FEATURES, hindsight_features, production_features
from feature_assets.groups.flights.labels import ASKED_BEFORE
from featurestore.errors import InvalidInput

LABEL = "is_delayed"
ASKED = ("distance", "scheduled_hour", "scheduled_weekday", "carrier", "origin")
"""What the question itself says of a flight: inputs of both models."""

NOT_INPUTS = ("flight_id", "tailnum", "dest", "label_time", LABEL)
"""Identities of a flight, its plane and its destination would be learnt by heart."""

HOLD_OUT_SHARE = 0.25
OFFLINE_SHARE = 0.2
OUTCOME_KNOWN = timedelta(days=1)
"""Training ends this long before the hold-out, so that every outcome it learns from is known by then: the longest delay
of 2013 was 21 h 41 min, and a flight is asked about 2 hours ahead."""

RESAMPLES = 500
SEED = 20130101
MOST_CATEGORIES = 254

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Score:
    """ROC AUC over some flights.

    Args:
        flights: How many were scored.
        auc: None if there is none, for the reason in `why_none`.
        interval: 95 % by resampling days with their flights, since flights of one day share its weather; None without
            an AUC or on a single day.
        why_none: Why there is no AUC.
    """

    flights: int
    auc: float | None = None
    interval: tuple[float, float] | None = None
    why_none: str = ""

    def __str__(self) -> str:
        if self.auc is None:
            return "none"
        return f"{self.auc:.3f}" + (f" [{self.interval[0]:.3f}, {self.interval[1]:.3f}]" if self.interval else "")


@dataclass(frozen=True, slots=True)
class Approach:
    """One model: its offline score, the later flights scored with features as trained, and with production's."""

    name: str
    offline: Score
    as_trained: Score
    production: Score

    @property
    def difference(self) -> float | None:
        """Offline minus production: what the offline score promised and production does not get."""
        return _minus(self.offline, self.production)

    @property
    def leak(self) -> float | None:
        """The part of it that is the features': the same later flights, features as trained minus production's."""
        return _minus(self.as_trained, self.production)


@dataclass(frozen=True, slots=True)
class Comparison:
    """Both models, side by side."""

    ours: Approach
    naive: Approach
    fitted_flights: int
    training_ends: datetime
    hold_out_starts: datetime

    def render(self) -> str:
        """The table as text, with what its columns mean, and why a score is missing."""
        return "\n".join([*_table(self.ours, self.naive), "", *self._notes()])

    def _notes(self) -> Iterator[str]:
        yield (
            f"ROC AUC [95 % interval]. Both models: {self.fitted_flights:,} flights before {self.training_ends:%Y-%m-%d %H:%M} "
            f"UTC; offline: a random fifth beside them ({self.ours.offline.flights:,}); production: "
            f"{self.ours.production.flights:,} flights from {self.hold_out_starts:%Y-%m-%d %H:%M} UTC on."
        )
        yield (
            "later, as trained: the production flights with features made as for training. From offline to there the flights "
            "changed, from there to production only their features did: that part is the leak. For ours the two are one by "
            "definition: the training set holds what was servable, and the proof below shows that serving returns it."
        )
        scores = [(a.name, score) for a in (self.ours, self.naive) for score in (a.offline, a.as_trained, a.production)]
        yield from dict.fromkeys(
            f"{name} has a score missing: {score.why_none}" for name, score in scores if score.auc is None
        )


def compare(training_set: pl.DataFrame, start: date, until: datetime) -> Comparison:
    """Train both models on the flights scheduled in [start, until), and score each offline and as production would.

    The hold-out is the last quarter of the span of label times. Equal input gives equal scores, whatever its order.

    Args:
        training_set: As `build_training_set` stores it for `departure_delay_v1`: the labels' columns, then the features
            of ours (numbers, booleans, strings, fixed-length vectors; nulls are missing values).
        start: First UTC day of scheduled departures.
        until: Scheduled departures lie before this instant.

    Returns:
        The scores; one that cannot be had (a part with one class only, or empty) is None and says why.

    Raises:
        InvalidInput: a column is missing or of a type no model here takes, a label is null, `until` has no zone, or no
            flight of the training set is scheduled in the span.
    """
    labels = _labels(training_set, start, as_utc(until, "until"))
    parts = _Parts.of(labels)
    flights = naive_flights(start, until)
    features = [name for name in labels.columns if name not in NOT_INPUTS]
    spine = labels.select("flight_id", "label_time", "dest", "tailnum", LABEL, *ASKED)
    return Comparison(
        ours=_approach("ours", parts, labels, labels, features),
        naive=_approach(
            "naive",
            parts,
            hindsight_features(spine, flights),
            production_features(spine, flights),
            [*ASKED, *NAIVE_FEATURES],
        ),
        fitted_flights=int(parts.fitted.sum()),
        training_ends=parts.training_ends,
        hold_out_starts=parts.hold_out_starts,
    )


def auc_interval(late: Flags, scores: Floats, day: NDArray[np.int64]) -> tuple[float, float] | None:
    """95 % interval of the ROC AUC, by drawing days with their flights (`RESAMPLES` draws, always the same ones).

    Args:
        late: Shape (n,): the truth.
        scores: Shape (n,): higher means more likely late.
        day: Shape (n,): the day of each flight, any integers.

    Returns:
        The percentiles 2.5 and 97.5; None if there are fewer than two days, or no draw has both classes.

    Source:
        Field and Welsh (2007), "Bootstrapping clustered data". An AUC is the share of (late, punctual) pairs in the right
        order (Hanley and McNeil, 1982), so a draw of days only weighs the pairs counted between two days.
    """
    days, place = np.unique(day, return_inverse=True)
    if len(days) < 2:
        return None
    wins = _wins(late, scores, place, len(days))
    drawn = np.random.default_rng(SEED).multinomial(len(days), np.full(len(days), 1 / len(days)), size=RESAMPLES)
    pairs = (drawn @ np.bincount(place[late], minlength=len(days))) * (
        drawn @ np.bincount(place[~late], minlength=len(days))
    )
    won = np.einsum("bi,ij,bj->b", drawn, wins, drawn, optimize=True)
    aucs = won[pairs > 0] / pairs[pairs > 0]
    return (float(np.quantile(aucs, 0.025)), float(np.quantile(aucs, 0.975))) if len(aucs) else None


def _wins(late: Flags, scores: Floats, place: NDArray[np.int64], days: int) -> Floats:
    """Pairs of a late flight of day i and a punctual one of day j that the scores put in order; a tie is half a pair."""
    wins = np.zeros((days, days))
    for j in range(days):
        punctual = np.sort(scores[~late & (place == j)])
        below = np.searchsorted(punctual, scores[late], "left") + np.searchsorted(punctual, scores[late], "right")
        wins[:, j] = np.bincount(place[late], weights=below / 2, minlength=days)
    return wins


def _labels(training_set: pl.DataFrame, start: date, until: datetime) -> pl.DataFrame:
    """The training set's flights of the span, in one order."""
    if missing := [name for name in (*NOT_INPUTS, *ASKED) if name not in training_set.columns]:
        raise InvalidInput(
            f"The training set lacks {missing}; it has {training_set.columns}. Build it on departure_labels."
        )
    if nulls := training_set[LABEL].null_count():
        raise InvalidInput(
            f"{nulls} of {training_set.height} labels are null. Keep flights whose outcome is known only."
        )
    scheduled = pl.col("label_time") + ASKED_BEFORE
    span = training_set.filter(scheduled.is_between(midnight(start), until, closed="left")).sort(
        "label_time", "flight_id"
    )
    if span.is_empty():
        first, last = _first_and_last(training_set)
        raise InvalidInput(
            f"None of the training set's {training_set.height} flights is scheduled in [{start}, {until}). Its labels lie in "
            f"[{first}, {last}]: give that span, or materialize more days."
        )
    return span


def _first_and_last(labels: pl.DataFrame) -> tuple[datetime, datetime]:
    first, last = labels.select(first=pl.col("label_time").min(), last=pl.col("label_time").max()).row(0)
    return first, last


@dataclass(frozen=True, slots=True)
class _Parts:
    """Which flights are in which part, and the truth and day of each."""

    fitted: Flags
    offline: Flags
    hold_out: Flags
    late: Flags
    day: NDArray[np.int64]
    training_ends: datetime
    hold_out_starts: datetime

    @classmethod
    def of(cls, labels: pl.DataFrame) -> "_Parts":
        first, last = _first_and_last(labels)
        hold_out_starts = last - (last - first) * HOLD_OUT_SHARE
        training_ends = hold_out_starts - OUTCOME_KNOWN
        hold_out = (labels["label_time"] >= hold_out_starts).to_numpy()
        training = (labels["label_time"] < training_ends).to_numpy()
        is_fifth = np.random.default_rng(SEED).random(labels.height) < OFFLINE_SHARE
        day = labels["label_time"].dt.date().to_physical().cast(pl.Int64).to_numpy()
        return cls(
            training & ~is_fifth,
            training & is_fifth,
            hold_out,
            labels[LABEL].to_numpy(),
            day,
            training_ends,
            hold_out_starts,
        )


def _approach(
    name: str, parts: _Parts, trained: pl.DataFrame, served: pl.DataFrame, features: Sequence[str]
) -> Approach:
    """Fit on features as trained, score them on the offline part, and the hold-out with both kinds."""
    predict = _fit(trained.filter(parts.fitted), features)

    def score(rows: pl.DataFrame, part: Flags) -> Score:
        late, flights = parts.late[part], int(part.sum())
        if isinstance(predict, str):
            return Score(flights, why_none=predict)
        if one_sided := _one_sided(late):
            return Score(flights, why_none=f"of the flights to score {one_sided}. Take more days.")
        scores = predict(rows.filter(part))
        return Score(flights, float(roc_auc_score(late, scores)), auc_interval(late, scores, parts.day[part]))

    as_trained = score(trained, parts.hold_out)
    production = as_trained if served is trained else score(served, parts.hold_out)
    return Approach(name, score(trained, parts.offline), as_trained, production)


def _fit(rows: pl.DataFrame, features: Sequence[str]) -> Callable[[pl.DataFrame], Floats] | str:
    """The model as a function from rows to scores, or why there is none."""
    late = rows[LABEL].to_numpy()
    if one_sided := _one_sided(late):
        return f"of the flights to train on {one_sided}. Take more days."
    inputs = [column for name in features for column in _inputs(rows[name])]
    model = HistGradientBoostingClassifier(
        max_iter=100, learning_rate=0.06, max_leaf_nodes=15, min_samples_leaf=100, l2_regularization=5.0, early_stopping=False,
        categorical_features=[is_category for _, is_category in inputs], random_state=SEED,
    )  # fmt: skip
    columns = [column for column, _ in inputs]
    with _one_thread():
        model.fit(_matrix(rows, columns), late)

    def predict(asked: pl.DataFrame) -> Floats:
        with _one_thread():
            probability: Floats = model.predict_proba(_matrix(asked, columns))[:, 1]
        return probability

    return predict


def _one_thread() -> threadpool_limits:
    """Keeps the model on one thread: where cores are shared, its threads wait for each other four times as long."""
    return threadpool_limits(1, user_api="openmp")


def _inputs(values: pl.Series) -> list[tuple[pl.Expr, bool]]:
    """A feature as numeric columns of the model, each with whether its numbers are categories.

    A string becomes its rank among the training flights' strings, the rarest beyond the model's limit and those never
    seen become missing. A column without any training value is left out: there is nothing to learn from.
    """
    column = pl.col(values.name)
    if values.null_count() == len(values):
        return []
    if values.dtype == pl.String:
        common = values.drop_nulls().value_counts().sort("count", values.name, descending=[True, False])[values.name]
        codes = {text: code for code, text in enumerate(common.head(MOST_CATEGORIES))}
        return [(column.replace_strict(codes, default=None, return_dtype=pl.Float64), True)]
    if isinstance(values.dtype, pl.Array):
        return [(column.arr.get(place).cast(pl.Float64), False) for place in range(values.dtype.size)]
    if values.dtype.is_numeric() or values.dtype == pl.Boolean:
        return [(column.cast(pl.Float64), False)]
    raise InvalidInput(
        f"Feature {values.name!r} is {values.dtype}; the demo's models take numbers, booleans, strings and fixed-length "
        "vectors. Leave it out of the service, or derive a number from it."
    )


def _matrix(rows: pl.DataFrame, columns: Sequence[pl.Expr]) -> Floats:
    """Shape (rows, columns), a missing value as NaN."""
    named = (column.alias(f"{place}") for place, column in enumerate(columns))
    return rows.select(named).fill_null(float("nan")).to_numpy()


def _one_sided(late: Flags) -> str:
    """What keeps a truth from being learnt or scored; empty if nothing does."""
    if not len(late):
        return "there are none"
    return "" if 0 < late.sum() < len(late) else f"all {len(late)} are {'late' if late[0] else 'punctual'}"


def _minus(high: Score, low: Score) -> float | None:
    return None if high.auc is None or low.auc is None else high.auc - low.auc


def _table(*approaches: Approach) -> Iterator[str]:
    """Aligned rows; a column is as wide as its widest cell."""
    rows = [["", "offline", "later, as trained", "production", "difference", "of it leak"]]
    for a in approaches:
        changes = ["none" if change is None else f"{change:+.3f}" for change in (a.difference, a.leak)]
        rows.append([a.name, str(a.offline), str(a.as_trained), str(a.production), *changes])
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    yield from ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)
