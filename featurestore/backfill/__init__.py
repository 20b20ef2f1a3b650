"""Backfills: planned, estimated, approved, computed by a strategy, compared with what was there, and taken back."""
