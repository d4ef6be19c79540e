"""`kubectl conch`: the commands for users of services, with their own permissions.

It may import every package, and has no rollout rules of its own: previews and requests use the pure functions that the
operator runs. Computing is separate from printing: each command builds one value, which `-o yaml` dumps and text
renders.
"""
