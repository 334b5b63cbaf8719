"""The demo: sample cases, a small dose engine, and the whole pipeline over them on this machine."""
