"""The sinks: each takes notices somewhere, in one way. Not here: which notices, when, and how often (`featurestore.alerts.delivery`)."""
