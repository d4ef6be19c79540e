"""The model agent: a native sidecar that fetches, lays out and loads models beside Triton."""

from conch_agent.imports import install

install()
