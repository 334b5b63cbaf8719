"""Fails when it is imported."""

raise ImportError("libcudart.so.12: cannot open shared object file")
