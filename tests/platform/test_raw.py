"""Landing files through `raw/<source>`: what cannot be read fails its run and names itself, and a re-run converges."""

from pathlib import Path

import dagster as dg
import polars as pl
import pytest

from tests.platform.kiosks import DAY, HOUR, T0, day_key, order, orders, register
from tests.platform.sandbox import Sandbox, failure_of

RAW = "raw/orders"


def land_days(sandbox: Sandbox, days: int = 4) -> list[Path]:
    return [
        sandbox.land(
            orders, [order(f"{day}-{n}", T0 + day * DAY + n * HOUR) for n in range(3)], f"{day_key(day)}.parquet"
        )
        for day in range(days)
    ]


def ids(sandbox: Sandbox) -> list[str]:
    return sorted(sandbox.offline.source(orders).scan().collect()["order_id"])


def cut_in_half(path: Path) -> bytes:
    """Leave half of a file, as a writer does that is not done; return the whole."""
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    return whole


def test_half_written_file_fails_its_run_and_the_others_land(sandbox: Sandbox) -> None:
    files = land_days(sandbox)
    cut_in_half(files[2])
    result = sandbox.run(RAW, partitions=[day_key(0), day_key(3)])
    assert not result.success
    text = failure_of(result)
    assert text.startswith("1 landing files are refused, 3 others are appended.")
    assert f"{day_key(2)}.parquet' of source 'orders' is not a whole Parquet file" in text
    assert "Land it again, by an atomic rename" in text
    assert not [event for event in result.all_events if event.is_step_up_for_retry]
    assert ids(sandbox) == sorted(f"{day}-{n}" for day in (0, 1, 3) for n in range(3))


def test_run_after_the_file_was_mended_converges(sandbox: Sandbox) -> None:
    files = land_days(sandbox)
    whole = cut_in_half(files[2])
    sandbox.run(RAW, partitions=[day_key(0), day_key(3)])
    files[2].write_bytes(whole)
    result = sandbox.run(RAW, partitions=[day_key(0), day_key(3)])
    assert result.success
    assert ids(sandbox) == sorted(f"{day}-{n}" for day in range(4) for n in range(3))
    shown = result.asset_materializations_for_node("raw__orders")[0].metadata
    assert (shown["files"].value, shown["files_known_before"].value, shown["rows"].value) == (1, 3, 3)
    assert sandbox.materialized(RAW) == [day_key(day) for day in range(4)]


def test_landing_again_appends_nothing(sandbox: Sandbox) -> None:
    land_days(sandbox)
    assert sandbox.run(RAW, partitions=[day_key(0), day_key(3)]).success
    before = sandbox.offline.source(orders).version()
    assert sandbox.run(RAW, partitions=[day_key(0), day_key(3)]).success
    assert sandbox.offline.source(orders).version() == before


def test_only_files_of_the_asked_days_land(sandbox: Sandbox) -> None:
    land_days(sandbox)
    assert sandbox.run(RAW, partitions=[day_key(1)]).success
    assert ids(sandbox) == ["1-0", "1-1", "1-2"]


@pytest.mark.parametrize("partial", [".2025-03-01.parquet.part", "_2025-03-01.parquet", ".2025-03-01.parquet"])
def test_file_that_is_not_finished_is_left_alone(sandbox: Sandbox, partial: str) -> None:
    land_days(sandbox, 1)
    (sandbox.landing / "orders" / partial).write_bytes(b"PAR1 and no end")
    assert sandbox.run(RAW, partitions=[day_key(0)]).success
    assert len(ids(sandbox)) == 3


def test_file_with_another_schema_is_refused_by_name(sandbox: Sandbox) -> None:
    path = land_days(sandbox, 1)[0]
    pl.read_parquet(path).with_columns(pl.col("amount").cast(pl.Float32)).write_parquet(path)
    result = sandbox.run(RAW, partitions=[day_key(0)])
    assert (
        "Column 'amount' of landing file '2025-03-01.parquet' is pl.Float32; source 'orders' declares pl.Float64. Land it again"
        in failure_of(result)
    )


def test_source_without_a_landing_folder_says_what_to_do(sandbox: Sandbox) -> None:
    result = sandbox.run(RAW, partitions=[day_key(0)])
    assert not result.success
    assert "No landing file of source 'orders'" in failure_of(result)


def test_timeless_source_takes_every_file(sandbox: Sandbox) -> None:
    sandbox.land(register, [{"kiosk": "a", "seats": 4}], "2025-03-01.parquet")
    sandbox.land(register, [{"kiosk": "a", "seats": 6}, {"kiosk": "b", "seats": 1}], "2025-03-02.parquet")
    assert sandbox.run("raw/register", "offline/kiosk_profile").success
    assert sorted(sandbox.rows("kiosk_profile").select("kiosk", "seats").rows()) == [("a", 6), ("b", 1)]


def landing_check(result: dg.ExecuteInProcessResult) -> dg.AssetCheckEvaluation:
    (evaluation,) = result.get_asset_check_evaluations()
    return evaluation


def test_refused_rows_are_told_by_reason_and_warn_until_they_are_dealt_with(sandbox: Sandbox) -> None:
    later = sandbox.now + 2 * DAY
    rows = [order("good", T0), order("ahead", later), order("nobody", T0) | {"order_id": None}]
    sandbox.land(orders, rows, "2025-03-01.parquet")
    result = sandbox.run(RAW, partitions=[day_key(0)])
    assert result.success
    shown = result.asset_materializations_for_node("raw__orders")[0].metadata
    assert shown["refused_because"].value == {"event time in the future": 1, "null key ['order_id']": 1}
    folder = Path(str(shown["refused_folder"].value))
    check = landing_check(result)
    assert (check.passed, check.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert str(folder) in str(check.description)
    again = landing_check(sandbox.run(RAW, partitions=[day_key(0)]))
    assert not again.passed, "a run that refuses nothing new does not hide what was refused"
    for file in folder.glob("*.parquet"):
        file.unlink()
    assert landing_check(sandbox.run(RAW, partitions=[day_key(0)])).passed


def test_misnamed_file_is_named_in_every_run_until_it_is_renamed(sandbox: Sandbox) -> None:
    land_days(sandbox, 1)
    path = sandbox.land(orders, [order("lost", T0)], "foo.parquet")
    result = sandbox.run(RAW, partitions=[day_key(0)])
    assert result.success
    check = landing_check(result)
    assert not check.passed
    assert "1 landing files are read by no run: ['foo.parquet']. Name them by a day" in str(check.description)
    path.rename(path.with_name("2025-03-01T23.parquet"))
    result = sandbox.run(RAW, partitions=[day_key(0)])
    assert landing_check(result).passed
    assert "lost" in ids(sandbox)


def test_timeless_source_has_no_misnamed_files(sandbox: Sandbox) -> None:
    sandbox.land(register, [{"kiosk": "a", "seats": 4}], "kiosks.parquet")
    result = sandbox.run("raw/register")
    assert result.success
    assert landing_check(result).passed


def test_refused_file_is_an_error_of_every_run_until_it_is_landed_again(sandbox: Sandbox) -> None:
    files = land_days(sandbox)
    whole = cut_in_half(files[2])
    for days in ([day_key(2)], [day_key(3)]):
        check = landing_check(sandbox.run(RAW, partitions=days))
        assert (check.passed, check.severity) == (False, dg.AssetCheckSeverity.ERROR)
        assert "1 landing files are refused, and windows are computed without them" in str(check.description)
        assert f"{day_key(2)}.parquet' of source 'orders' is not a whole Parquet file" in str(check.description)
        assert check.metadata["refused_files"].value == 1
    files[2].write_bytes(whole)
    assert landing_check(sandbox.run(RAW, partitions=[day_key(2)])).passed


def test_refused_file_that_is_taken_away_is_an_error_no_more(sandbox: Sandbox) -> None:
    files = land_days(sandbox)
    cut_in_half(files[2])
    sandbox.run(RAW, partitions=[day_key(2)])
    files[2].unlink()
    assert landing_check(sandbox.run(RAW, partitions=[day_key(3)])).passed


def test_of_many_refused_files_a_few_are_told_with_their_reasons(sandbox: Sandbox) -> None:
    files = land_days(sandbox, 6)
    for file in files[:5]:
        cut_in_half(file)
    check = landing_check(sandbox.run(RAW, partitions=[day_key(0), day_key(5)]))
    assert "5 landing files are refused" in str(check.description)
    assert str(check.description).count("is not a whole Parquet file") == 3
    assert "And 2 more. Land each again under its name" in str(check.description)
