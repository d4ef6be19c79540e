"""The warm-up of a model: requests until its latency is stable, and a check of its answers.

It runs in each pod before the pod reports ready (`pod`), and as a Job through the revision's Service before the
revision gets its first requests of users (`job`).
Requests are JSON over HTTP, so that a user's body reaches Triton unchanged and Triton's errors are about these bytes.
(Control is over gRPC; `conch_agent.triton` has the reason.)
"""
