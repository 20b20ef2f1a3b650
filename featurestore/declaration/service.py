"""`FeatureService`: a model's inputs by name; the consumer, the unit of training and of serving."""

from collections.abc import Sequence
from dataclasses import dataclass

from featurestore.declaration.feature import check_name, check_owner
from featurestore.declaration.group import FeatureGroup
from featurestore.declaration.types import require, require_items
from featurestore.errors import DeclarationError


@dataclass(frozen=True, slots=True)
class FeatureService:
    """The features that one model reads.

    Args:
        name: The model's name and version, such as 'departure_delay_v1'.
        features: Groups (all their features) or references 'group:feature', e.g. `carrier_delay_daily["dep_delay_mean_7d"]`.
        owner: 'team:...' or an e-mail address.
        description: One line for the catalogue.
    """

    name: str
    features: Sequence[FeatureGroup | str]
    owner: str
    description: str = ""

    def __post_init__(self) -> None:
        check_name("Service", self.name)
        check_owner(f"Service {self.name!r}", self.owner)
        require_items(
            f"Service {self.name!r}: features",
            self.features,
            (FeatureGroup, str),
            "a list of groups and references, features=[carrier_delay_daily, 'plane_profile:seats']",
        )
        require(f"Service {self.name!r}: description", self.description, str, "one line of text")
        references = self.references
        if not references:
            raise DeclarationError(
                f"Service {self.name!r} names no features. Name groups or references 'group:feature'."
            )
        for reference in references:
            if references.count(reference) > 1:
                raise DeclarationError(f"Service {self.name!r} names {reference!r} twice. Remove one.")
            if reference.count(":") != 1:
                raise DeclarationError(
                    f"Service {self.name!r}: {reference!r} is not of the form 'group:feature'. Write e.g. "
                    "'carrier_delay_daily:flights_7d', or the group itself for all of its features."
                )

    @property
    def references(self) -> list[str]:
        """Every feature as 'group:feature', in declared order."""
        out: list[str] = []
        for item in self.features:
            out += [item[feature.name] for feature in item.features] if isinstance(item, FeatureGroup) else [item]
        return out
