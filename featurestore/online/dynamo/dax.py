"""A DAX cluster in front of the table, for reads.

Only values are read through it, never states; writes go to the table itself, since DAX does not hand back what a refused
conditional put found. So a value, or its absence, may be as old as the cluster's item time to live (`record-ttl-millis`): keep
that well below the groups' freshness. Nothing that DAX gave repairs the hot tier.
"""

import importlib
from typing import Any

from botocore.config import Config

from featurestore.errors import InvalidInput
from featurestore.online.dynamo.url import TableAddress


def dax_client(address: TableAddress, session: Any) -> Any:
    """Connect to the cluster; the client answers `batch_get_item` as boto3's does.

    Raises:
        InvalidInput: its library is not installed.
    """
    try:
        library = importlib.import_module("amazondax")
    except ModuleNotFoundError as error:
        raise InvalidInput(
            "dax=... in the address of the warm tier needs the library amazon-dax-client, which is not installed: "
            "pip install 'featurestore[dax]'. Or leave dax out."
        ) from error
    seconds = address.timeout_seconds
    return library.AmazonDaxClient(
        session,
        region_name=address.region or None,
        endpoint_url=address.dax,
        config=Config(connect_timeout=seconds, read_timeout=seconds, retries={"max_attempts": 0}),
    )
