"""`kubectl conch`: what people ask of services, with their own rights and from their own machine.

It may use every package. What may not be in it: a rule of its own about rollouts. What a manifest would do, and what a
request means, is asked of the same pure functions that the operator runs. Computing stands apart from printing:
each command makes one value, which `-o yaml` dumps and text renders.
"""
