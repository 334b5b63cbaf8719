"""The config file: typed sections, load, merge, check."""
