"""The scripts that run inside a Redis or Valkey server, and how they are sent. Not here: what they decide (each says it itself)."""

from functools import cache
from hashlib import sha1
from importlib.resources import files

_PACKAGE = "featurestore.online.redis"
_ALONE = frozenset({"read.lua", "published.lua"})


@cache
def script(name: str) -> tuple[str, str]:
    """Text and digest of a script; those that write messages or states begin with `group.lua`."""
    text = files(_PACKAGE).joinpath(name).read_text(encoding="utf-8")
    if name not in _ALONE:
        text = files(_PACKAGE).joinpath("group.lua").read_text(encoding="utf-8") + "\n" + text
    return text, sha1(text.encode(), usedforsecurity=False).hexdigest()
