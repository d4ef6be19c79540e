"""What the end-to-end tests, the demo and the benchmarks share: a user's hands, eyes and traffic.

Here are kubectl and the installation, a store with real models, clients of Triton, a load generator, and the
API server's audit log. Nothing here knows how the operator works inside: it sees what a user could see.
"""
