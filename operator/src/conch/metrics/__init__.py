"""The metrics API of autoscalers: custom.metrics.k8s.io/v1beta2, answered from Triton's own counters.

A process of its own (`conch-metrics`): it writes only its certificate into the APIService, and a burst of
reconciles never keeps an autoscaler waiting. A request scrapes the pods that it concerns, and nothing else is scraped:
values are as fresh as possible, the rate is that of the autoscaler, and a service without an autoscaler costs nothing.

Read `server.py` first, then `window.py`, which holds the arithmetic. No package of the operator may import this one.
"""
