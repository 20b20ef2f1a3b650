"""The gate between staging and production: what each window is held against, and what is found wrong with it.

All of it is pure but `judging.py`, which leads a run's windows through, and `reference_windows.py`, which reads what they
are compared with.
"""
