"""From declarations and raw rows to the rows of a window: what a transform may see, and what is stamped on what it returns."""
