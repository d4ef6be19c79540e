"""The metrics API of autoscalers: custom.metrics.k8s.io/v1beta2, with values of Triton's counters.

It is a process of its own (`conch-metrics`), so that reconciles do not delay autoscalers. It writes only its
certificate into the APIService. A request scrapes the pods of its query; there are no other scrapes. So values are new,
the rate is that of the autoscaler, and a service without an autoscaler costs nothing.

Read `server.py` first, then `window.py` with the arithmetic. No package of the operator may import this one.
"""
