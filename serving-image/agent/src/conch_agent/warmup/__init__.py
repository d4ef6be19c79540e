"""Warming a model: asking it until its latency is stable, and looking at what it answers.

One program with two uses: in each pod before it reports ready (`pod`), and as a Job of a revision through
the revision's Service before it gets its first share of the requests (`job`).
Requests are posted as JSON over HTTP: the user's body reaches Triton as it was written, so that a refusal is
Triton's own word on those very bytes. (Control goes over gRPC, for the reason told in `conch_agent.triton`.)
"""
