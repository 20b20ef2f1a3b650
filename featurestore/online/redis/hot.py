"""Which hot tier stands behind an address. Not here: the tiers (`redis`, `cluster`)."""

from featurestore.clock import Clock
from featurestore.online.tier import Tier


def open_hot_tier(url: str, clock: Clock) -> Tier:
    """The hot tier at an address; nothing is sent before its first call.

    Args:
        url: `redis://`, `rediss://` (TLS) or `unix://` of one server; `redis+cluster://host:port,host:port` or
            `rediss+cluster://` of some nodes of a cluster. User, password, and query parameters (TLS files, timeouts) as
            redis-py reads them: `rediss://user:password@host:6380/0?ssl_ca_certs=ca.pem&ssl_certfile=me.pem&ssl_keyfile=me.key`.
            What rights the user needs, docs/online.md says.
        clock: Rules what is refused as of the future, and the servers' expiry.

    Raises:
        InvalidInput: The address is unreadable.
    """
    if "+cluster://" in url:
        from featurestore.online.redis.cluster import RedisClusterTier
        from featurestore.online.redis.connection import seeds_of

        return RedisClusterTier(seeds_of(url), clock)
    from featurestore.online.redis.tier import RedisOnlineStore

    return RedisOnlineStore(url, clock)
