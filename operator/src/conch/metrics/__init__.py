"""The metrics API of autoscalers: custom.metrics.k8s.io/v1beta2, answered from Triton's own counters.

A process of its own (`conch-metrics`): it writes nothing but its certificate's place in the APIService, and a burst of
reconciles never keeps an autoscaler waiting. Nothing is scraped but the pods that a question is about, at the moment
when it is asked: so the answer is as fresh as can be, the rate is that of the autoscaler, and who asks nothing costs
nothing.

Read `server.py` first, then `window.py`, which holds the arithmetic. No package of the operator may import this one.
"""
