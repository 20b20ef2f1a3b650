"""What a source's landing left out, as Dagster shows it: files and rows that were refused, and files that no run reads."""

from collections.abc import Collection, Mapping, Sequence

import dagster as dg

from featurestore.declaration import Source
from featurestore.location import Location
from featurestore.offline.receipts import Receipt

LANDING = "landing"
REFUSED_FILES = "refused_files"
"""In the metadata of a result: how many files are refused whole."""
SHOWN_FILES = 50
SHOWN_REASONS = 3
NAMING = "Name them by a day from the source's first partition on: <YYYY-MM-DD>.parquet or <YYYY-MM-DD>T<HH>.parquet."


def landing_spec(source: Source) -> dg.AssetCheckSpec:
    """The check that `raw/<source>` evaluates in every run; it blocks nothing."""
    return dg.AssetCheckSpec(
        LANDING,
        asset=dg.AssetKey(["raw", source.name]),
        description="No file and no row of the source was refused, and every landing file is named so that a run reads it. It fails until "
        "refused files are landed again or taken away, and warns until refused rows are deleted from their folder, and files renamed.",
    )


def refused_files(receipts: Mapping[str, Receipt], landed: Collection[str]) -> dict[str, str]:
    """The landing files that are refused whole, with the reasons: those that are still there, and were refused when last read.

    Args:
        receipts: The last one of each file.
        landed: The names of the files that are there now.
    """
    return {name: one.reason for name, one in receipts.items() if one.status == "refused" and name in landed}


def landing_result(
    spec: dg.AssetCheckSpec, rows: Location, misnamed: Sequence[str], refused: Mapping[str, str]
) -> dg.AssetCheckResult:
    """What is left out now, by whichever run. Windows are computed without a file that is refused: that is an error.

    Args:
        rows: Folder of the refused rows, a Parquet file for each landing file that had some; column `refusal` says why.
        misnamed: Landing files that no run reads.
        refused: Landing files that are refused whole, with the reasons.
    """
    files, told = rows.names(), []
    if refused:
        told.append(_refused_text(refused))
    if files:
        told.append(
            f"{len(files)} landing files had rows that were refused; they are in {rows.uri}, column 'refusal' says why."
        )
    if misnamed:
        told.append(f"{len(misnamed)} landing files are read by no run: {list(misnamed[:SHOWN_FILES])}. {NAMING}")
    return dg.AssetCheckResult(
        passed=not told,
        asset_key=spec.asset_key,
        check_name=spec.name,
        severity=dg.AssetCheckSeverity.ERROR if refused else dg.AssetCheckSeverity.WARN,
        description=" ".join(told) or "Every row landed.",
        metadata={
            REFUSED_FILES: len(refused),
            "refused_rows_of_files": len(files),
            "misnamed_files": len(misnamed),
            "refused_folder": rows.uri,
        },
    )


def _refused_text(refused: Mapping[str, str]) -> str:
    shown = " ".join([*refused.values()][:SHOWN_REASONS])
    more = f" And {len(refused) - SHOWN_REASONS} more." if len(refused) > SHOWN_REASONS else ""
    return (
        f"{len(refused)} landing files are refused, and windows are computed without them. {shown}{more} "
        "Land each again under its name, corrected, or take it away."
    )
