"""Every error this library raises on purpose.

FeatureStoreError
├── DeclarationError (ValueError)       a declaration contradicts itself or another one
├── IncompatibleChange (ValueError)     a declaration changed in a way that needs a new version
├── InvalidInput (ValueError)           a frame, a time or an argument that cannot be used as it is
├── SchemaMismatch (TypeError)          columns or dtypes differ from the declared ones
├── UnknownName (LookupError)           a group, feature, service, source or backfill that is not there
├── NotAllowed (PermissionError)        a person or an API key without the right to it
│   └── NotAuthenticated                no valid API key where one is needed
├── AlreadyDecided                      a backfill whose state does not allow what was asked
├── PromotionRefused                    a partition failed its gate and stays in staging
├── NotFresh                            a strict online read of a group that is in breach, or of which nobody knows
├── StaleWriter                         a newer run has written what this one was about to write
├── FenceRefused                        an online write carries a fence or an epoch that is no longer current
├── AlertRefused                        a sink does not take an alert as it is
├── SinkUnavailable (ConnectionError)   a sink of alerts cannot be reached just now
└── StoreUnavailable (ConnectionError)  a store cannot be reached

Messages say what was asked, what is there, and what to do. Nothing here knows HTTP or Dagster: the shells translate.
"""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any


class FeatureStoreError(Exception):
    """Base of every error raised on purpose by this library."""


class DeclarationError(FeatureStoreError, ValueError):
    """A declaration contradicts itself or another one."""


class IncompatibleChange(FeatureStoreError, ValueError):
    """A declaration changed in a way that stored rows cannot follow without a new version."""


class InvalidInput(FeatureStoreError, ValueError):
    """A frame, a time or an argument cannot be used as it is."""


class SchemaMismatch(FeatureStoreError, TypeError):
    """Columns or dtypes differ from the declared ones."""


class UnknownName(FeatureStoreError, LookupError):
    """A group, feature, service, source or backfill that is not there."""


class NotAllowed(FeatureStoreError, PermissionError):
    """A person or an API key has no right to what was asked."""


class NotAuthenticated(NotAllowed):
    """No valid API key was given where one is needed."""


class AlreadyDecided(FeatureStoreError):
    """A backfill is in a state that does not allow what was asked."""


class PromotionRefused(FeatureStoreError):
    """A partition failed its gate and stays in staging."""


class NotFresh(FeatureStoreError):
    """A strict online read touches a group that is in breach of its SLO, or of which nobody knows whether it is.

    Args:
        message: For people.
        groups: Of each such group what `featurestore.freshness.read_state.GroupState.document` gives: its name, state, lag, SLO, since
            when, and the cause.
    """

    def __init__(self, message: str, groups: Sequence[Mapping[str, Any]] = ()) -> None:
        super().__init__(message)
        self.groups = tuple(groups)


class StaleWriter(FeatureStoreError):
    """A newer run has written what this one was about to write."""


class FenceRefused(FeatureStoreError):
    """An online write carries a fence or an epoch that is no longer current."""


class AlertRefused(FeatureStoreError):
    """A sink does not take an alert as it is, and will not when it is sent again."""


class SinkUnavailable(FeatureStoreError, ConnectionError):
    """A sink of alerts cannot be reached just now."""


class StoreUnavailable(FeatureStoreError, ConnectionError):
    """A store cannot be reached."""


def unknown_name(kind: str, asked: str, known: Iterable[str], where: str) -> UnknownName:
    """Build an `UnknownName` that lists what is there and guesses what was meant.

    >>> print(unknown_name("Feature", "dep_dealy", ["arr_delay", "dep_delay"], "Group 'flight_status'"))
    Feature 'dep_dealy' is not registered. Group 'flight_status' has ['arr_delay', 'dep_delay']. Did you mean 'dep_delay'?
    """
    names = sorted(known)
    close = difflib.get_close_matches(asked, names, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    return UnknownName(f"{kind} {asked!r} is not registered. {where} has {names}.{hint}")
