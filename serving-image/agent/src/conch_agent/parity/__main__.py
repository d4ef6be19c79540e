"""`python -m conch_agent.parity` is `conch-parity`."""

from conch_agent.parity.job import main

main()
