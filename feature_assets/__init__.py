"""Feature groups as Dagster assets: declarations in `groups/`, and the factories that turn them into assets."""
