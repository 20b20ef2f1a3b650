"""Feature references: what may be asked, and the names of the columns that answer."""

import dataclasses

import pytest

from featurestore.declaration import FeatureService
from featurestore.errors import InvalidInput, UnknownName
from featurestore.references import Request, resolve
from featurestore.registry.compile import compile_snapshot
from featurestore.registry.snapshot import RegistrySnapshot
from tests.catalogs import OWNER, shop_last_sale_hourly, shop_model_v1, shop_sales_daily, shops


@pytest.fixture(scope="module")
def registry() -> RegistrySnapshot:
    snapshot = compile_snapshot(shops(), None)
    second = dataclasses.replace(snapshot.groups["shop_profile"], name="shop_profile_v2", version=2)
    return dataclasses.replace(snapshot, groups={**snapshot.groups, "shop_profile_v2": second})


def columns(registry: RegistrySnapshot, request: Request, *, full: bool = False) -> dict[str, list[str]]:
    asked = resolve(registry, request, full_feature_names=full)
    return {wanted.group.name: [column for _, column in wanted.features] for wanted in asked}


def test_references_are_grouped_in_the_order_of_first_mention(registry: RegistrySnapshot) -> None:
    asked = ["shop_profile:town", "shop_sales_daily:sales_2d", "shop_profile:area", "shop_sales_daily:revenue"]
    found = columns(registry, asked)
    assert list(found.items()) == [("shop_profile", ["town", "area"]), ("shop_sales_daily", ["sales_2d", "revenue"])]


def test_full_names_carry_the_group(registry: RegistrySnapshot) -> None:
    asked = ["shop_profile:town", "shop_profile_v2:town"]
    assert columns(registry, asked, full=True) == {
        "shop_profile": ["shop_profile__town"],
        "shop_profile_v2": ["shop_profile_v2__town"],
    }


@pytest.mark.parametrize("reference", ["shop_profile@v2:town", "shop_profile_v2:town"])
def test_a_version_is_asked_in_either_form(registry: RegistrySnapshot, reference: str) -> None:
    assert columns(registry, [reference]) == {"shop_profile_v2": ["town"]}
    assert columns(registry, ["shop_profile@v1:town"]) == {"shop_profile": ["town"]}


@pytest.mark.parametrize("request_", ["shop_model_v1", shop_model_v1])
def test_a_service_is_asked_by_name_or_as_a_value(registry: RegistrySnapshot, request_: Request) -> None:
    assert columns(registry, request_) == {
        "shop_sales_daily": ["revenue", "sales_2d"],
        "shop_last_sale_hourly": ["sold_in"],
    }


def test_a_service_that_is_not_registered_is_resolved_by_its_references(registry: RegistrySnapshot) -> None:
    service = FeatureService("mine", features=[shop_last_sale_hourly, shop_sales_daily["revenue"]], owner=OWNER)
    assert columns(registry, service) == {
        "shop_last_sale_hourly": ["amount", "sold_in"],
        "shop_sales_daily": ["revenue"],
    }


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (["shop_profle:town"], "Did you mean 'shop_profile'"),
        (["shop_profile:twon"], "Did you mean 'shop_profile:town'"),
        ("shop_model_v2", "Did you mean 'shop_model_v1'"),
        (["shop_profile@v9:town"], "'shop_profile_v9' is not registered"),
    ],
)
def test_unknown_names_are_refused_with_a_guess(registry: RegistrySnapshot, asked: Request, said: str) -> None:
    with pytest.raises(UnknownName, match=said):
        resolve(registry, asked)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ([], "No features were asked for"),
        ("shop_profile:town", r"Pass a list: \['shop_profile:town'\]"),
        (["shop_profile"], "not a feature reference"),
        ([7], "not a feature reference"),
        (
            ["shop_profile:town", "shop_profile:town"],
            "^Feature 'shop_profile:town' is asked for twice. Ask for it once.$",
        ),
        (["shop_profile:town", "shop_profile@v1:town"], "'shop_profile@v1:town' is asked for twice"),
        (["shop_profile:town", "shop_profile_v2:town"], "full_feature_names=True"),
    ],
)
def test_requests_that_make_no_sense_are_refused_with_the_remedy(
    registry: RegistrySnapshot, asked: Request, said: str
) -> None:
    with pytest.raises(InvalidInput, match=said):
        resolve(registry, asked)


def test_one_feature_asked_twice_is_refused_also_by_full_name(registry: RegistrySnapshot) -> None:
    with pytest.raises(InvalidInput, match=r"'shop_profile@v1:town' is asked for twice\."):
        resolve(registry, ["shop_profile:town", "shop_profile@v1:town"], full_feature_names=True)
