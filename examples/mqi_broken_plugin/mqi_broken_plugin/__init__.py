"""A plugin that doesn't work."""
