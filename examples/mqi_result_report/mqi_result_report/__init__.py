"""The plugin report of mqi: a page for each case."""
