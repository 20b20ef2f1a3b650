"""What a source's landing left out, as Dagster shows it: rows that were refused, and files that no run reads."""

from collections.abc import Sequence

import dagster as dg

from featurestore.declaration import Source
from featurestore.location import Location

LANDING = "landing"
SHOWN_FILES = 50
NAMING = "Name them by a day from the source's first partition on: <YYYY-MM-DD>.parquet or <YYYY-MM-DD>T<HH>.parquet."


def landing_spec(source: Source) -> dg.AssetCheckSpec:
    """The check that `raw/<source>` evaluates in every run; it warns and blocks nothing."""
    return dg.AssetCheckSpec(
        LANDING,
        asset=dg.AssetKey(["raw", source.name]),
        description="No row of the source was refused, and every landing file is named so that a run reads it. It warns until the refused rows "
        "are deleted from their folder, and the files renamed.",
    )


def landing_result(spec: dg.AssetCheckSpec, refused: Location, misnamed: Sequence[str]) -> dg.AssetCheckResult:
    """What is left out now, by whichever run.

    Args:
        refused: Folder of the refused rows, a Parquet file for each landing file that had some; column `refusal` says why.
        misnamed: Landing files that no run reads.
    """
    files, told = refused.names(), []
    if files:
        told.append(
            f"{len(files)} landing files had rows that were refused; they are in {refused.uri}, column 'refusal' says why."
        )
    if misnamed:
        told.append(f"{len(misnamed)} landing files are read by no run: {list(misnamed[:SHOWN_FILES])}. {NAMING}")
    return dg.AssetCheckResult(
        passed=not told,
        asset_key=spec.asset_key,
        check_name=spec.name,
        severity=dg.AssetCheckSeverity.WARN,
        description=" ".join(told) or "Every row landed.",
        metadata={"refused_rows_of_files": len(files), "misnamed_files": len(misnamed), "refused_folder": refused.uri},
    )
