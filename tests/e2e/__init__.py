"""Stories of users, in a real cluster with real nodes, with the operator in pods as the chart installs it.

A test describes what a user does with kubectl and a client of Triton, and what the user then sees. It waits on
conditions with a deadline. What the operator does inside is no business of this folder.
"""
