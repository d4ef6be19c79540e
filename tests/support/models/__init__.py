"""Models that are small enough to be read: the tests upload these files as they stand."""
