"""Where events come from and where they go: informers list and watch, the stores learn, services are queued.

May enter: watches, lists, which services an event concerns. May not enter: what is to be done because of it.
"""
