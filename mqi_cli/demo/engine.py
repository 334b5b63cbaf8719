"""The demo's dose engine: a program of its own, with nothing of mqi in it, as it would stand on a GPU server.

    engine.py interpret --logdir INPUT --outputdir CSV      spot logs to one CSV a layer, and layers.csv with their sums
    engine.py simulate --csvdir CSV --outputdir DOSE        CSVs to one dose plane a field (64 x 64, float32, raw)

It computes no physics, only sums that can be checked: each layer's records and monitor counts, and each field's
counts by position.
"""

from __future__ import annotations

import argparse
import array
import csv
import struct
import sys
import time
from pathlib import Path

RECORD = struct.Struct(">8H")
GRID = 64


def interpret(logdir: Path, outputdir: Path) -> None:
    """Turn every spot log into a CSV, and sum it up in layers.csv."""
    outputdir.mkdir(parents=True, exist_ok=True)
    logs = sorted(logdir.glob("*/*.ptn"))
    if not logs:
        sys.exit("no spot logs (*.ptn) in the field directories")
    with (outputdir / "layers.csv").open("w", newline="") as table:
        sums = csv.writer(table)
        sums.writerow(["field", "log", "records", "dose1", "dose2"])
        for number, log in enumerate(logs, 1):
            data = log.read_bytes()
            if len(data) % RECORD.size:
                sys.exit(f"log {number} is cut in the middle of a record")
            rows = list(RECORD.iter_unpack(data))
            field = outputdir / log.parent.name
            field.mkdir(exist_ok=True)
            with (field / f"{log.stem}.csv").open("w", newline="") as out:
                csv.writer(out).writerows((row[0], row[1], row[4], row[5]) for row in rows)
            sums.writerow(
                [log.parent.name, log.stem, len(rows), sum(row[4] for row in rows), sum(row[5] for row in rows)]
            )
            sys.stdout.write(f"interpreted log {number} of {len(logs)}\n")


def simulate(csvdir: Path, outputdir: Path) -> None:
    """Add each field's monitor counts up by position."""
    outputdir.mkdir(parents=True, exist_ok=True)
    fields = sorted(folder for folder in csvdir.iterdir() if folder.is_dir())
    for number, field in enumerate(fields, 1):
        plane = array.array("f", bytes(4 * GRID * GRID))
        for layer in sorted(field.glob("*.csv")):
            with layer.open(newline="") as rows:
                for x, y, dose, _ in csv.reader(rows):
                    plane[int(y) * GRID // 65536 * GRID + int(x) * GRID // 65536] += float(dose)
        with (outputdir / f"{field.name}.raw").open("wb") as out:
            plane.tofile(out)
        sys.stdout.write(f"Generating particles for ({number} of {len(fields)} batches)\n")


def main() -> None:
    """Run one of the two programs."""
    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers(dest="command", required=True)
    for name, source in (("interpret", "--logdir"), ("simulate", "--csvdir")):
        command = commands.add_parser(name)
        command.add_argument(source, dest="source", type=Path, required=True)
        command.add_argument("--outputdir", type=Path, required=True)
    arguments = parser.parse_args()
    began = time.monotonic()
    {"interpret": interpret, "simulate": simulate}[arguments.command](arguments.source, arguments.outputdir)
    sys.stdout.write(f"Total execution time: {time.monotonic() - began:.2f} s\n")


if __name__ == "__main__":
    main()
