"""Conch: one InferenceService becomes NVIDIA Triton serving. Read `reconcile` first."""

from conch import imports

imports.install()
