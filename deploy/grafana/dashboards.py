"""The dashboards: freshness of all groups, one group, and the feature server. `python -m deploy.grafana.dashboards` writes them.

Every query is over what the board, the feature server or the recording rules of `deploy/prometheus/` have; a test holds it to that.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from deploy.grafana.panels import GROUP, Panel, Query, Row, dashboard, number, ranking, series, statuses

FOLDER = Path(__file__).resolve().parent
STORE = 'store=~"$store"'
"""Of which store; a Prometheus that has only one knows no such label, and all of its series are chosen."""
LAG_OF_SLO = (
    "max by (store, group) (featurestore_group_slo_lag_seconds) "
    "/ max by (store, group) (featurestore_group_slo_seconds)"
)
OWN = f'{STORE}, group="$group"'
CHOSEN = f'group:featurestore_info:max{{{STORE}, owner=~"$owner", tier=~"$tier"}}'


def freshness_dashboard() -> dict[str, Any]:
    """Every group, the worst first."""
    rows = [*_of_all_groups(), *_of_the_board()]
    variables = [("store", "Store"), ("owner", "Owner"), ("tier", "Tier")]
    return dashboard(
        "featurestore-freshness",
        "Feature store: freshness",
        "Is the data of every group as fresh as promised?",
        variables,
        rows,
    )


def _of_all_groups() -> list[Row]:
    """Status, lags, attainment and burn."""
    return [
        (4, [*(_count(status) for status in ("BREACH", "WARN", "NEVER", "OK")), _look_age()]),
        (
            9,
            [
                statuses(
                    "Status",
                    _chosen("group:featurestore_status:max"),
                    text="A breach is a lag at its SLO, a source that is silent for too long, or pushes that come too late.",
                )
            ],
        ),
        (
            9,
            [
                ranking(
                    "Lag, as a share of the SLO",
                    f"sort_desc(topk(15, {_chosen(LAG_OF_SLO)}))",
                    unit="percentunit",
                ),
                ranking(
                    "Attainment over 30 days, the lowest",
                    f"sort(bottomk(15, {_chosen(_attainment('30d'))}))",
                    unit="percentunit",
                    longest=1,
                    text="The share of time without a breach, as the platform's sensor kept it.",
                ),
            ],
        ),
        (
            9,
            [
                series(
                    "Burn of the error budget, over an hour",
                    [Query(f"topk(10, {_chosen('group:featurestore_budget_burn:ratio_1h')} > 0)", GROUP)],
                    unit="short",
                    text="1: the budget lasts exactly its 30 days. From 14.4 on a page is sent.",
                ),
                series(
                    "Data lag, the longest",
                    [
                        Query(
                            f"topk(10, {_chosen('max by (store, group) (featurestore_group_data_lag_seconds)')})", GROUP
                        )
                    ],
                    unit="s",
                ),
            ],
        ),
    ]


def _of_the_board() -> list[Row]:
    """Its own looks, on which all of it rests."""
    return [
        (
            6,
            [
                series(
                    "Time of a look",
                    [Query(f"max(featurestore_board_last_look_duration_seconds{{{STORE}}})", "look")],
                    unit="s",
                ),
                series(
                    "Looks that failed",
                    [
                        Query(
                            f"sum(increase(featurestore_board_look_failures_total{{{STORE}}}[$__rate_interval]))",
                            "failed",
                        )
                    ],
                    unit="short",
                ),
                number(
                    "History last kept",
                    f"time() - max(featurestore_board_last_record_timestamp_seconds{{{STORE}}})",
                    unit="s",
                    warn=2700,
                    text="The sensor `freshness` keeps it; without it attainment is not told.",
                ),
            ],
        ),
    ]


def group_dashboard() -> dict[str, Any]:
    """One group with its inputs, windows and what is served of it."""
    rows = [*_of_one_group(), *_of_windows_and_values()]
    return dashboard(
        "featurestore-group",
        "Feature store: one group",
        "One group: how fresh, and why.",
        [("store", "Store"), ("group", "Group")],
        rows,
    )


def _of_one_group() -> list[Row]:
    """How fresh it is, and why."""
    return [
        (
            4,
            [
                number("Materialization lag", _of("materialization_lag_seconds"), unit="s"),
                number("SLO", _of("slo_seconds"), unit="s"),
                number("Attainment, 1 h", f"max({_own('attainment_ratio', span='1h')})", unit="percentunit"),
                number("Attainment, 24 h", f"max({_own('attainment_ratio', span='24h')})", unit="percentunit"),
                number("Attainment, 30 d", f"max({_own('attainment_ratio', span='30d')})", unit="percentunit"),
                number("Windows due", _of("due_windows")),
            ],
        ),
        (4, [statuses("Status", f"group:featurestore_status:max{{{OWN}}}")]),
        (
            9,
            [
                series(
                    "Lags and SLO",
                    [
                        Query(_of("materialization_lag_seconds"), "materialization"),
                        Query(_of("online_lag_seconds"), "online"),
                        Query(_of("slo_lag_seconds"), "held against the SLO"),
                        Query(_of("slo_seconds"), "SLO"),
                    ],
                    unit="s",
                ),
                series(
                    "Inputs: lag, and what they may be silent for",
                    [
                        Query(f"max by (source) ({_own('source_lag_seconds')})", "{{source}}"),
                        Query(f"max by (source) ({_own('source_silence_seconds')})", "{{source}} may be"),
                    ],
                    unit="s",
                ),
            ],
        ),
    ]


def _of_windows_and_values() -> list[Row]:
    """What became of its windows, and what is served of it."""
    return [
        (
            8,
            [
                series(
                    "Windows",
                    [
                        Query(_of("due_windows"), "due"),
                        Query(_of("hole_windows"), "holes"),
                        Query(_of("quarantined_windows"), "in quarantine"),
                    ],
                    unit="short",
                ),
                series(
                    "Burn of the error budget",
                    [
                        Query(f"max(group:featurestore_budget_burn:ratio_{length}{{{OWN}}})", length)
                        for length in ("5m", "1h", "6h", "3d")
                    ],
                    unit="short",
                ),
            ],
        ),
        (
            8,
            [
                series(
                    "Values served, by status",
                    [
                        Query(
                            f"sum by (status) (rate(featurestore_values_total{{{OWN}}}[$__rate_interval]))",
                            "{{status}}",
                        )
                    ],
                    unit="cps",
                ),
                series(
                    "Age of the oldest value of a read",
                    [
                        Query(_quantile(0.5, "featurestore_value_age_seconds", OWN), "half"),
                        Query(_quantile(0.99, "featurestore_value_age_seconds", OWN), "99 in 100"),
                    ],
                    unit="s",
                ),
            ],
        ),
    ]


def serving_dashboard() -> dict[str, Any]:
    """The feature server."""
    rows = [*_of_requests(), *_of_values()]
    return dashboard(
        "featurestore-serving", "Feature store: serving", "How the feature server answers.", [("store", "Store")], rows
    )


def _of_requests() -> list[Row]:
    """How many, how they end, how long they take."""
    return [
        (
            8,
            [
                _rates("Requests, by path and code", "featurestore_requests_total", "path, code", unit="reqps"),
                series(
                    "Errors, as a share of requests",
                    [Query(f"featurestore:request_errors:ratio_rate5m{{{STORE}}}", "errors of the server {{store}}")],
                    unit="percentunit",
                ),
            ],
        ),
        (
            8,
            [
                series(
                    "Time to answer",
                    [
                        Query(_quantile(share, "featurestore_request_seconds"), f"p{share * 100:g}")
                        for share in (0.5, 0.95, 0.99, 0.999)
                    ],
                    unit="s",
                ),
                series(
                    "Time to answer, 99 in 100, by service",
                    [Query(_quantile(0.99, "featurestore_request_seconds", by="service"), "{{service}}")],
                    unit="s",
                ),
                series(
                    "In flight", [Query(f"sum(featurestore_in_flight_requests{{{STORE}}})", "requests")], unit="short"
                ),
            ],
        ),
    ]


def _of_values() -> list[Row]:
    """Where they come from, how old they are, and what is written."""
    return [
        (
            8,
            [
                _rates("Values, by status", "featurestore_values_total", "status", unit="cps"),
                _rates("Values, by tier", "featurestore_values_total", "tier", unit="cps"),
                _rates("What nobody could speak for, by cause", "featurestore_unanswered_total", "cause", unit="cps"),
            ],
        ),
        (
            8,
            [
                series(
                    "Hits of the cache of hot keys",
                    [
                        Query(
                            f'sum(rate(featurestore_hot_key_lookups_total{{{STORE}, outcome="hit"}}[$__rate_interval])) '
                            f"/ sum(rate(featurestore_hot_key_lookups_total{{{STORE}}}[$__rate_interval]))",
                            "hits",
                        )
                    ],
                    unit="percentunit",
                ),
                _rates("Put back into the hot tier", "featurestore_repairs_total", "outcome", unit="cps"),
                series(
                    "Waiting to be put back",
                    [Query(f"sum(featurestore_repairs_waiting{{{STORE}}})", "keys")],
                    unit="short",
                ),
            ],
        ),
        (
            8,
            [
                _rates("Rows pushed, by group", "featurestore_pushed_rows_total", "group", unit="cps"),
                series(
                    "Requests joined in one read of the store",
                    [
                        Query(
                            f"sum(rate(featurestore_coalesced_requests_sum{{{STORE}}}[$__rate_interval])) "
                            f"/ sum(rate(featurestore_coalesced_requests_count{{{STORE}}}[$__rate_interval]))",
                            "mean",
                        )
                    ],
                    unit="short",
                ),
                series(
                    "Age of values read, 99 in 100, by group",
                    [Query(_quantile(0.99, "featurestore_value_age_seconds", by="group"), "{{group}}")],
                    unit="s",
                ),
            ],
        ),
    ]


DASHBOARDS: Mapping[str, Callable[[], dict[str, Any]]] = {
    "freshness.json": freshness_dashboard,
    "group.json": group_dashboard,
    "serving.json": serving_dashboard,
}


def dashboard_text(name: str) -> str:
    """A dashboard's file as it is to be."""
    return json.dumps(DASHBOARDS[name](), indent=2) + "\n"


def _chosen(query: str) -> str:
    """Of a vector by group, the groups whose owner and tier are chosen."""
    return f"(({query}) and on (store, group) {CHOSEN})"


def _count(status: str) -> Panel:
    held = f'max by (store, group) (featurestore_group_status{{status="{status}"}})'
    query = f"sum({_chosen(held)})"
    return number(status, query, warn=1 if status == "BREACH" else None)


def _look_age() -> Panel:
    return number(
        "Age of the last look",
        f"time() - max(featurestore_board_last_look_timestamp_seconds{{{STORE}}})",
        unit="s",
        warn=300,
        text="The board looks every 30 s. Figures that are too old are not exported.",
    )


def _attainment(span: str) -> str:
    return f'max by (store, group) (featurestore_group_attainment_ratio{{span="{span}"}})'


def _own(metric: str, **labels: str) -> str:
    """A metric of the chosen group."""
    matchers = ", ".join([OWN, *(f'{name}="{value}"' for name, value in labels.items())])
    return f"featurestore_group_{metric}{{{matchers}}}"


def _of(metric: str) -> str:
    return f"max({_own(metric)})"


def _rates(title: str, counter: str, by: str, *, unit: str) -> Panel:
    legend = " ".join(f"{{{{{label}}}}}" for label in by.split(", "))
    return series(title, [Query(f"sum by ({by}) (rate({counter}{{{STORE}}}[$__rate_interval]))", legend)], unit=unit)


def _quantile(share: float, histogram: str, labels: str = STORE, by: str = "") -> str:
    kept = f"le, {by}" if by else "le"
    return f"histogram_quantile({share:g}, sum by ({kept}) (rate({histogram}_bucket{{{labels}}}[$__rate_interval])))"


def main() -> None:
    for name in DASHBOARDS:
        (FOLDER / name).write_text(dashboard_text(name))


if __name__ == "__main__":
    main()
