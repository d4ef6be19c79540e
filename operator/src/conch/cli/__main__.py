"""`python -m conch.cli`."""

from conch.cli.main import main

main()
