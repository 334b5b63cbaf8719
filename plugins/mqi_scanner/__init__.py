"""Finds complete cases."""
