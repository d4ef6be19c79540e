"""Entry point of ``python -m tests.release``."""

from tests.release.cli import main

main()
