"""Tags with which a backfill is launched: how, by whom, and which one it carries on. Dagster gives them to every run.

They ask; whether a backfill may run is decided by the book alone.
"""

from collections.abc import Mapping
from typing import cast

from featurestore.launch import Launch, Strategy

STRATEGY = "featurestore/strategy"
ACCEPT_SHIFT = "featurestore/accept_shift"
WITHOUT = "featurestore/without"
REQUESTED_BY = "featurestore/requested_by"
RESUMES = "featurestore/resumes"
"""The backfill whose windows this one carries on. It is a backfill of its own: estimated, admitted and rolled back apart,
since whoever launches one can type this tag."""


def launch_tags(launch: Launch, requested_by: str, resumes: str = "") -> dict[str, str]:
    """The tags of a launch.

    Args:
        launch: How windows are to be computed; its id is Dagster's to give.
        requested_by: Who launches it.
        resumes: The backfill that it carries on, if any.

    >>> launch_tags(Launch(without=("kiosk_sales_daily",)), "anna")
    {'featurestore/strategy': 'full', 'featurestore/requested_by': 'anna', 'featurestore/without': 'kiosk_sales_daily'}
    """
    return {
        STRATEGY: launch.strategy,
        REQUESTED_BY: requested_by,
        **({ACCEPT_SHIFT: "true"} if launch.accept_shift else {}),
        **({WITHOUT: ",".join(launch.without)} if launch.without else {}),
        **({RESUMES: resumes} if resumes else {}),
    }


def launch_of(tags: Mapping[str, str]) -> Launch:
    """The launch that tags ask for; others than those above are not looked at.

    Raises:
        InvalidInput: the strategy is not known.

    >>> launch_of(launch_tags(Launch("", "incremental", True), "anna"))
    Launch(backfill_id='', strategy='incremental', accept_shift=True, without=())
    """
    return Launch(
        strategy=cast(Strategy, tags.get(STRATEGY) or "full"),
        accept_shift=tags.get(ACCEPT_SHIFT, "").strip().lower() == "true",
        without=tuple(name.strip() for name in tags.get(WITHOUT, "").split(",") if name.strip()),
    )
