"""Who may read and push over HTTP: API keys, what they allow, and where they are kept.

`key.py` is the form of a key, `caller.py` what one allows, `book.py` the keys in the metadata database, `known.py` a server
process's copy of them, `authenticator.py` what a server asks. Not here: HTTP, and who may decide on backfills
(`backfill/rights.py`).
"""
