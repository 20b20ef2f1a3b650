"""When what a part records of a group may move on: one rule, whatever the part keeps its records in. Not here: the records."""

from featurestore.errors import FenceRefused, StaleWriter
from featurestore.online.tier import Fill, MaterializationState

_REMEDY = "Read the state again and take the step from there, or rebuild."


def require_forward(
    place: str, group: str, stored: MaterializationState | None, to: MaterializationState, *, begins: bool = False
) -> MaterializationState:
    """Refuse a state that is not ahead of what is recorded, or level with it.

    Rules: R never moves backwards, neither version nor instant, and stays with its table. Only a rebuild begins it; a rebuild
    that stood still after its last slice comes when another has ended the fill, and perhaps moved on, so it may not go back either.

    Args:
        place: Where the record is, as in 'at 127.0.0.1:6379'.
        group: Whose record it is.
        stored: R as recorded; None if none is.
        to: What R is to become.
        begins: Whether this may be the first.

    Returns:
        R as recorded, or `to` where it begins.

    Raises:
        StaleWriter: As above.
    """
    if stored is None and begins:
        return to
    where = f"The online state of group {group!r} {place} cannot move to version {to.version}"
    if stored is None:
        raise StaleWriter(f"{where}: none is recorded. {_REMEDY}")
    if stored.table_id != to.table_id:
        raise StaleWriter(f"{where}: it is of another table. {_REMEDY}")
    if to.version < stored.version or to.as_of < stored.as_of:
        raise StaleWriter(
            f"{where} as of {to.as_of.isoformat()}: it is at version {stored.version} as of {stored.as_of.isoformat()}. {_REMEDY}"
        )
    return stored


def furthest(reached: MaterializationState | None, to: MaterializationState) -> MaterializationState:
    """What a copy reflects at most, once something moves it to `to`: never less than another step had announced."""
    if reached is None or reached.table_id != to.table_id:
        return to
    version, as_of = max(reached.version, to.version), max(reached.as_of, to.as_of)
    return MaterializationState(to.table_id, version, as_of, to.contract)


def is_behind(basis: MaterializationState | None, reached: MaterializationState | None) -> bool:
    """Whether what a write reflects is older, in version or instant, than what a copy has or is moving to; None: not known."""
    if basis is None or reached is None:
        return False
    return basis.version < reached.version or basis.as_of < reached.as_of


def require_owner(place: str, group: str, fill: Fill | None, owner: str | None) -> None:
    """Refuse a fill's writer who is not the one recorded; None: there is to be no fill.

    Raises:
        FenceRefused: Another owns it, or nobody does.
    """
    stored = fill.owner if fill else None
    if stored != owner:
        raise FenceRefused(
            f"The fill of group {group!r} {place} has owner {stored!r}, not {owner!r}: another has begun it, taken it over or "
            "ended it. Look at the fill under way again."
        )
