"""`python -m tests.bench.starts`: how long new pods wait for their model.

It is a package because the agents are forked by multiprocessing, which imports the main module in each of them, unless
that is a `__main__.py`.
"""
