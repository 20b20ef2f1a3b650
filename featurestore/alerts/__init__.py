"""Alerts: what is wrong now (`problem.py`), since when as one episode (`episode.py`), who is told of it (`routes.py`), and how (`sinks/`).

Not here: what the stores say (`featurestore.freshness`), and who looks (`sensors/`).
"""
