"""All of a release that can be done from a checkout: `make release`.

It is in `tests/` because it builds images and runs Helm and crane with `tests.cluster`.
It creates no commit and no tag.
"""
