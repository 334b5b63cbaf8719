"""Moves files: stages upload and download."""
