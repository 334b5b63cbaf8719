"""Runs commands on a host: stage run."""
