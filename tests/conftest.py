"""What holds for every test: those marked `exam` run only in `make exam`, at whatever scale.

And what lets several test processes run beside each other on a slow machine: each has ports of its own for the servers
that it starts, and no examples are found too slow.
"""

import os

import pytest
from hypothesis import HealthCheck, settings

from featurestore import ports
from tests.scale import exam_scale

settings.register_profile("any machine", suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")


def pytest_configure() -> None:
    """A port that one process has chosen no other takes before it is used."""
    worker = os.environ.get("PYTEST_XDIST_WORKER", "")
    if not worker:
        return
    count = int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
    number, share = int(worker.removeprefix("gw")) % count, (ports.LAST - ports.FIRST) // count
    ports.FIRST += number * share
    ports.LAST = ports.FIRST + share


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if exam_scale() > 0:
        return
    skip = pytest.mark.skip(reason="runs in `make exam`")
    for item in items:
        if item.get_closest_marker("exam"):
            item.add_marker(skip)


@pytest.fixture(scope="session")
def chromium() -> None:
    """A browser; imported here, since few tests need one."""
    from tests.browser import require_chromium

    require_chromium()
