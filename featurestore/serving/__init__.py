"""The feature server: Feast's HTTP contract over a `FeatureStore`, with Arrow and Protobuf bodies beside its JSON.

`app.py` wires the parts into an ASGI application, `run.py` runs it in worker processes. Not here: how values are read or
what they mean (`featurestore.online`), and who may read them (`featurestore.auth`).
"""
