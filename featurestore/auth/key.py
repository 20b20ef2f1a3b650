"""The form of an API key: `fs_<id>_<secret>`, and what is kept of it. Not here: what a key allows, where it is kept.

The id is public: it names the key in logs and lists. The secret is 256 random bits, shown once. What is kept is the SHA-256
of the whole key. A slow hash, with salt, protects secrets that people choose, since those can be guessed; of 2^256 random
ones none can, so it would only cost every request its milliseconds.
"""

import hashlib
import re
import secrets
from dataclasses import dataclass, field

KEY = re.compile(r"fs_([0-9a-f]{12})_[0-9a-f]{64}")
KEY_ID = re.compile(r"[0-9a-f]{12}")
BEARER = re.compile(r"(?i:bearer) +(\S+) *")


@dataclass(frozen=True, slots=True)
class PresentedKey:
    """A key as someone shows it: its id, and the hash of all of it. The key itself is not kept."""

    key_id: str
    sha256: str = field(repr=False)


def make_key() -> tuple[str, str]:
    """A new key's id, and the key; whoever asked for it is shown it now or never."""
    key_id = secrets.token_hex(6)
    return key_id, f"fs_{key_id}_{secrets.token_hex(32)}"


def digest_of(key: str) -> str:
    """What is kept of a key: SHA-256, in hexadecimal."""
    return hashlib.sha256(key.encode()).hexdigest()


def parse_key(key: str) -> PresentedKey | None:
    """Read a key; None if the text has not the form of one."""
    found = KEY.fullmatch(key)
    return PresentedKey(found[1], digest_of(key)) if found else None


def parse_authorization(authorization: str) -> PresentedKey | None:
    """Read the value of an `Authorization` header: 'Bearer fs_...'; None if that is not what it is.

    >>> parse_authorization("Basic dXNlcjpwYXNzd29yZA==") is None
    True
    """
    found = BEARER.fullmatch(authorization)
    return parse_key(found[1]) if found else None
