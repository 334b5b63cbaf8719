"""`mqi demo`, as somebody calls it who has never seen mqi: it ends well by itself and leaves nothing running."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def test_the_demo_ends_by_itself_with_proven_results_and_leaves_no_process(tmp_path: Path) -> None:
    place = tmp_path / "demo"
    command = [sys.executable, "-m", "mqi_cli", "demo", "--cases", "1", "--directory", str(place)]
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=tmp_path, timeout=170, check=False, stdin=subprocess.DEVNULL
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert "36 layers and 3 dose planes agree with the spot logs" in done.stdout
    for step in ("upload", "interpret", "simulate", "fetch_sums", "fetch_dose", "archive"):
        assert f"{step} done in" in done.stdout
    assert any((place / "results").rglob("*.raw"))
    assert any((place / "archive").rglob("*.tar.gz"))
    assert f"--config {place / 'mqi.yaml'} case list --all" in done.stdout
    assert _processes_of(place) == []


def test_the_demo_refuses_a_directory_that_holds_something(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("keep me")
    for place in (tmp_path, tmp_path / "mine"):
        command = [sys.executable, "-m", "mqi_cli", "demo", "--directory", str(place)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 2
        assert "is not an empty directory" in done.stderr
    assert (tmp_path / "mine").read_text() == "keep me"


def _processes_of(place: Path) -> list[str]:
    found = []
    for each in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = each.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:  # it ended in between
            continue
        if str(place) in words:
            found.append(words)
    return found
