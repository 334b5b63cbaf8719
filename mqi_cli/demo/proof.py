"""Proves what the demo brought back: the sums that the engine wrote, against the spot logs in the source."""

from __future__ import annotations

import array
import csv
from pathlib import Path

from mqi_cli.demo.samples import RECORD


def check_results(case: Path, results: Path) -> str:
    """Compare every layer's sums, and each field's total dose, with the case's own logs.

    Return one sentence. Raises `ValueError` that says what differs.
    """
    logs = sorted(case.glob("*/*.ptn"))
    with (results / "csv" / "layers.csv").open(newline="") as table:
        rows = {(row["field"], row["log"]): row for row in csv.DictReader(table)}
    totals: dict[str, int] = {}
    for log in logs:
        records = list(RECORD.iter_unpack(log.read_bytes()))
        dose = sum(record[4] for record in records)
        row = rows.get((log.parent.name, log.stem))
        if row is None or (int(row["records"]), int(row["dose1"])) != (len(records), dose):
            raise ValueError("the sums of a layer are not those of its spot log")
        totals[log.parent.name] = totals.get(log.parent.name, 0) + dose
    if len(rows) != len(logs):
        raise ValueError(f"{len(rows)} layers came back, {len(logs)} were sent")
    for field, total in totals.items():
        plane = array.array("f")
        plane.frombytes((results / "dose" / f"{field}.raw").read_bytes())
        if round(sum(plane)) != total:
            raise ValueError("a field's dose is not the sum of its layers")
    return f"{len(logs)} layers and {len(totals)} dose planes agree with the spot logs"
