"""How fresh each group is: what the stores say (`watch.py`), what that means (`judgement.py`), and what is kept of it (`journal.py`).

Not here: what is declared (`featurestore.declaration.tier`), and who is told (`sensors/`, the command line, the server).
"""
