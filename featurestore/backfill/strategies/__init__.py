"""The four strategies: where the rows of a window come from, and which windows a launch leaves as they are."""
