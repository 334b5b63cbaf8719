"""Watches hosts and GPUs."""
