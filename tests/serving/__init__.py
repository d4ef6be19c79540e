"""The agent and the backends against a real Triton and a real S3 store, as processes on loopback."""
