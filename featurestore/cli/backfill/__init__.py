"""`featurestore backfill`: launch, watch, approve, inspect, compare and take back backfills."""
