"""Conch: one InferenceService becomes NVIDIA Triton serving. Read `reconcile` first."""
