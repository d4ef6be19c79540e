"""`kubectl conch model`: makes, signs, encrypts, verifies and uploads what the agent of a serving pod fetches.

What the agent reads is verified by the agent's own code. Modules other than `commands` import packages of the extra
kubectl-conch[model], so they are imported when a command runs.
"""
