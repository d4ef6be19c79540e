"""Whether two revisions answer alike: the same requests to both, and their outputs side by side.

The requests are the warm-up's, so are the connections and the reading of answers (`conch_agent.warmup`). What is
compared, and how, is `compare`: pure. Nothing here speaks to the API server; the verdict is the operator's.
"""
