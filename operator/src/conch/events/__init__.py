"""Watch events: informers list and watch, handlers update the caches and queue the affected services.

In this package: lists, watches, and which services an event affects. Not in it: decisions about these services.
"""
