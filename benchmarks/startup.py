"""How long `mqi` takes to start, against a bare Typer program with two commands, in one interleaved measurement."""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

RUNS = 21
LIMIT = 1.3
BARE = """\
import typer
app = typer.Typer()
@app.command()
def a():
    print("a")
@app.command()
def b():
    print("b")
app()
"""


def measure(place: Path, runs: int) -> dict[str, tuple[float, float]]:
    """Return the median wall and CPU seconds of each program. Each round runs every one once, so that all share the noise."""
    bare = place / "bare.py"
    bare.write_text(BARE)
    python = sys.executable
    mqi = str(Path(python).with_name("mqi"))
    empty, none = place / "empty", place / "none"
    (empty / "mqi").mkdir(parents=True)
    programs = {
        "bare --help": ([python, str(bare), "--help"], none),
        "mqi --help": ([mqi, "--help"], none),
        "bare a": ([python, str(bare), "a"], none),
        "mqi case list, no store": ([mqi, "case", "list"], none),
        "mqi case list, empty store": ([mqi, "case", "list"], empty),
    }
    outside = {key: value for key, value in os.environ.items() if not key.startswith(("MQI_", "XDG_"))}
    from mqi_cli.store import open_store

    open_store(empty / "mqi" / "state.db").close()
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in programs}
    for number in range(runs + 1):
        for name, (command, state) in programs.items():
            environment = outside | {"HOME": str(place), "XDG_STATE_HOME": str(state)}
            before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
            subprocess.run(command, cwd=place, env=environment, stdout=subprocess.DEVNULL, check=True)
            wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
            if number:  # the first round only fills the caches
                cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
                taken[name].append((wall, cpu))
    return {
        name: (statistics.median(wall for wall, _ in each), statistics.median(cpu for _, cpu in each))
        for name, each in taken.items()
    }


def main(runs: int = RUNS) -> None:
    """Measure, and print each median with its ratio to the bare program."""
    with tempfile.TemporaryDirectory(prefix="mqi-bench-") as place:
        found = measure(Path(place), runs)
    print(f"Start-up, medians of {runs} interleaved runs; the aim is a ratio of at most {LIMIT}")
    for name, (wall, cpu) in found.items():
        base = found["bare --help" if "--help" in name else "bare a"]
        ratio = "" if name.startswith("bare") else f"   ratio {wall / base[0]:.2f} wall, {cpu / base[1]:.2f} CPU"
        print(f"  {name:<28} {wall * 1000:5.0f} ms wall {cpu * 1000:5.0f} ms CPU{ratio}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else RUNS)
