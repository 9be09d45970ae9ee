"""Golden arrays: what every public method gave, and chose, before everything was moved and renamed.

`python -m tests.golden` writes them, once; `tests/test_golden.py` compares what is found today with them, through the
names of `adapter`.
"""
