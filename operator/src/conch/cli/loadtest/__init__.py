"""Load test of a service: requests at a scheduled rate, their results, and a plot.

`schedule`, `results` and `replicas` are functions of values. `tensors`, `client` and `plot` need packages that only
this command needs (the extra `load`), so they are imported when it runs; see `extras`.
"""
