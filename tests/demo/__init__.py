"""The demo: from nothing to a model that answers, with everything that happens shown as it happens."""
