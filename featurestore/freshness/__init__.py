"""How fresh each group is: what the stores say (`watch.py`), what that means (`judgement.py`), what is kept of it (`journal.py`), and
what readers of the online store are told (`publishing.py`) and make of it (`on_read.py`).

Not here: what is declared (`featurestore.declaration.tier`), and who is told (`sensors/`, the command line, the server).
"""
