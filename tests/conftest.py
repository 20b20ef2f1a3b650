"""What holds for every test: those marked `exam` run only in `make exam`, at whatever scale."""

import pytest

from tests.scale import exam_scale


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
