"""The exception of a cache that a pod has to do without."""


class CacheUnusableError(Exception):
    """The cache cannot take the files of a model: a sentence without a full stop. The pod fetches them by itself."""
