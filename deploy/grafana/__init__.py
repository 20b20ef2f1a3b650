"""Grafana dashboards as code: what a panel is (`panels.py`), and which there are (`dashboards.py`); the JSON beside them is what they build."""
