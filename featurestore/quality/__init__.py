"""Statistics of the windows of a group: computed, merged, kept in a frame's form, and held against a chosen reference.

Pure, but for `recording.py` (which windows lack their statistics), `deployed.py` (which training set counts) and
`evaluation.py` (what a group's windows are held against). Where statistics lie is in `featurestore/offline/statistics.py`;
whether a distance is too far is decided by the gate's `comparison.py`, for both.
"""
