"""Load on a service that people can watch: asked by the clock, counted to the last request, drawn.

`schedule`, `tally` and `replicas` are functions of values. `tensors`, `client` and `plot` stand on packages that only
this command needs (the extra `load`), so they are imported when it runs and not before; see `extras`.
"""
