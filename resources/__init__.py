"""Thin Dagster resources: they hold typed settings and hand out plain featurestore objects."""
