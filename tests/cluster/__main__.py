"""Entry point of ``python -m tests.cluster``."""

from tests.cluster.cli import main

main()
