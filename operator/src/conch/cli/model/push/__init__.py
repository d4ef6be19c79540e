"""Uploads of a model: a module for each kind of target. What a target has already is not sent again."""
