"""The feature server's client: `FeatureStore`'s online half over HTTP, plain and async.

`http.py` has the clients, `attempts.py` when a request is sent again, `question.py` what is sent, `answer.py` and
`refusal.py` what comes back. Needs httpx: the extra `featurestore[client]`. Not here: anything that reads a store itself.

>>> from featurestore.client import FeatureClient  # doctest: +SKIP
>>> with FeatureClient("http://127.0.0.1:6566", api_key) as client:  # doctest: +SKIP
...     client.get_online_features("departure_delay_v1", [{"carrier": "UA"}]).to_dict()
"""

try:
    from featurestore.client.http import AsyncFeatureClient, FeatureClient
except ModuleNotFoundError as error:
    if error.name != "httpx":
        raise
    raise ModuleNotFoundError(
        "featurestore.client needs httpx, which is not installed: pip install 'featurestore[client]'.", name="httpx"
    ) from error
from featurestore.client.answer import Pushed

__all__ = ["AsyncFeatureClient", "FeatureClient", "Pushed"]
