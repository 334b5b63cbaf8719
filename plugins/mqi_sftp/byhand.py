"""What `mqi transfer` does through the operator's door, and prints."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict

from mqi_cli import CaseError, CaseView, Column, Operator, UsageError, complain, progress, say, show
from mqi_sftp.meter import Show
from mqi_sftp.preview import compares_content, preview_download, preview_upload
from mqi_sftp.verify import Verdict, verify_download, verify_upload

_MOVED = (
    Column("step", "step"),
    Column("files", "files", "right"),
    Column("bytes", "bytes", "right"),
    Column("moved_bytes", "bytes moved now", "right"),
    Column("seconds", "s", "right"),
    Column("fingerprint", "fingerprint"),
)
_MOVES = (Column("act", "would"), Column("size", "bytes", "right"), Column("path", "file"))
_FINDINGS = (Column("step", "step"), Column("problem", "problem"), Column("path", "file"))


def move(stage: str, case: str, *, step: str, dry_run: bool, json: bool, format: str) -> None:
    """Run a step of `upload` or `download` in the foreground, or list what it would move."""
    operator = Operator.open()
    if dry_run:
        ref, ctx = operator.stage_context(stage, case, step=step)
        with progress(f"{stage}, dry run") as shown:
            moves = (preview_upload if stage == "upload" else preview_download)(ref, ctx, show=shown)
        show(
            [asdict(each) for each in moves],
            _MOVES,
            json=json,
            format=format,
            empty="Nothing to move: all of it is there, and proven.",
        )
        if stage == "upload" and not compares_content(ctx) and any(each.act == "keep" for each in moves):
            complain("what is to be kept was told by size and time alone; the upload proves it, and sends what differs")
        return
    facts = dict(operator.perform(stage, case, step=step))
    row = {**facts, "step": step or stage, "moved_bytes": facts.get("sent_bytes", facts.get("fetched_bytes"))}
    show([row], _MOVED, json=json, format=format)


def prove_again(case: str, *, step: str, json: bool, format: str) -> bool:
    """Prove the finished transfers of a case again, print what came of it, and say whether all is equal."""
    operator = Operator.open()
    with progress("verify") as shown:
        verdicts = list(_verdicts(operator, operator.find(case), case, step, shown))
    if not verdicts:
        raise CaseError("nothing of this case has been moved yet", hint="mqi case show tells its steps")
    if json:
        show([asdict(each) for each in verdicts], (), json=True)
    else:
        for each in verdicts:
            say(f"{each.step}: {each.text}")
        rows = [{"step": each.step, **asdict(finding)} for each in verdicts for finding in each.findings]
        if rows:
            show(rows, _FINDINGS, format=format)
    return not any(each.differs for each in verdicts)


def _verdicts(operator: Operator, view: CaseView, case: str, name: str, shown: Show) -> Iterator[Verdict]:
    workflow = operator.config.workflows.get(view.workflow)
    steps = [] if workflow is None else [each for each in workflow.steps if each.stage.name in ("upload", "download")]
    if name and name not in [each.name for each in steps]:
        raise UsageError(f"the case's workflow has no step {name} that moves files")
    for each in steps:
        facts = view.facts.get((each.name, ""), {})
        if name not in ("", each.name) or not (name or "fingerprint" in facts):
            continue
        ref, ctx = operator.stage_context(each.stage.name, case, step=each.name)
        if each.stage.name == "upload":
            yield verify_upload(ref, ctx, show=shown)
        else:
            yield verify_download(ref, ctx, recorded=str(facts.get("fingerprint", "")), show=shown)
