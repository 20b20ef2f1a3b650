"""The board: the freshness of every group as a web page, as JSON and as Prometheus metrics, by a small process of its own.

It reads the stores off the path of requests (`watching.py`) and answers from what it found. Not here: what fresh means
(`featurestore.freshness`), or who keeps what was found (the platform's sensor).
"""
