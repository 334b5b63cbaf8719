"""All measurements, one after the other: what `make bench` runs."""

from __future__ import annotations

import os
import platform

import idle
import many_cases
import many_runs
import startup


def main() -> None:
    """Run every benchmark and print what it measured."""
    print(f"Python {platform.python_version()}, {os.cpu_count()} cores, {platform.system()} {platform.machine()}\n")
    startup.main()
    print()
    many_cases.main()
    print()
    idle.main()
    print()
    many_runs.main()
    print("\nAgainst AiiDA, in one run: make bench-aiida")


if __name__ == "__main__":
    main()
