"""A package, so that its tests can name the fixtures' types."""
