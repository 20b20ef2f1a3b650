"""featurestore: point-in-time correct training sets and the same values online."""
