"""Makes the texts: a page in HTML, a line of the ledger. Pure."""

from __future__ import annotations

import csv
import html
import io
from collections.abc import Mapping, Sequence
from typing import Any

from mqi_cli import CaseRef, Earlier, Manifest

LEDGER_HEAD = ("key", "name", "revision", "files", "bytes", "input")

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{name}</title>
<style>
body {{ font: 15px/1.5 sans-serif; margin: 2em auto; max-width: 60em; }}
td, th {{ padding: .2em .8em .2em 0; text-align: left; vertical-align: top; }}
code {{ font-size: 85%; overflow-wrap: anywhere; }}
</style></head><body>
<p>{site}</p>
<h1>{name}</h1>
<p>Case {key}, revision {revision}. Input <code>{fingerprint}</code></p>
<h2>What was done</h2>
<table><tr><th>step</th><th>part</th><th>attempt</th><th>reported</th></tr>
{steps}
</table>
<h2>{count} results, {size} bytes</h2>
<table><tr><th>file</th><th>bytes</th><th>SHA-256</th></tr>
{files}
</table>
</body></html>
"""


def page(case: CaseRef, *, site: str, earlier: Sequence[Earlier], results: Manifest) -> str:
    """Return the case's page. Equal input gives an equal page: it holds no time of its own."""
    steps = [_row(each.step, each.part, each.attempt, _facts(each.facts)) for each in earlier]
    files = [_row(file.path, file.size, code=file.sha256) for file in results.files]
    return _PAGE.format(
        site=html.escape(site),
        name=html.escape(_legible(case.name)),
        key=html.escape(case.key),
        revision=case.revision,
        fingerprint=html.escape(case.fingerprint),
        steps="\n".join(steps),
        count=len(results.files),
        size=results.size,
        files="\n".join(files),
    )


def with_line(ledger: str, case: CaseRef, results: Manifest) -> str:
    """Return the ledger's text with the case's line in it: replaced where it has one, else at the end."""
    line = [case.key, _legible(case.name), case.revision, len(results.files), results.size, case.fingerprint]
    rows: list[list[Any]] = [row for row in csv.reader(io.StringIO(ledger)) if row][1:]
    at = next((number for number, row in enumerate(rows) if row[0] == case.key), len(rows))
    rows[at : at + 1] = [line]
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([LEDGER_HEAD, *rows])
    return text.getvalue()


def _row(*cells: object, code: str = "") -> str:
    texts = [html.escape(_legible(str(cell))) for cell in cells] + (
        [f"<code>{html.escape(code)}</code>"] if code else []
    )
    return f"<tr>{''.join(f'<td>{text}</td>' for text in texts)}</tr>"


def _facts(facts: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in facts.items() if isinstance(value, str | int | float))


def _legible(text: str) -> str:
    """Return a text that can be written as UTF-8: undecodable bytes of a file name become a question mark."""
    return text.encode("utf-8", "replace").decode("utf-8")
