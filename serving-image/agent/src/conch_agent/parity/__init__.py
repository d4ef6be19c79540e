"""The comparison of two revisions: the same requests to both, and a comparison of their outputs.

Requests, connections and the parser of answers are those of the warm-up (`conch_agent.warmup`). `compare` is the
arithmetic, without I/O. This package has no connection to the API server; the operator evaluates the report.
"""
