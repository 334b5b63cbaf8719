"""A case that arrives slowly, file by file, as treatment machines write it: taken once, never early, and right at the end."""

from __future__ import annotations

import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from servers.house import NAME, House, hashes

PAUSE = 0.02  # between two files: 230 of them take longer than four rounds of the scanner


@pytest.mark.parametrize("broker", ["embedded", pytest.param("rabbitmq", marks=pytest.mark.soak)])
def test_a_case_copied_file_by_file_is_taken_once_and_never_early(
    house: House, broker: str, request: pytest.FixtureRequest
) -> None:
    section = house.broker(request.getfixturevalue("rabbitmq")) if broker == "rabbitmq" else ""
    house.configure(broker=section)
    delivered = house.write_case(house.directory / "delivered", layers=37)
    files = sorted(each for each in delivered.rglob("*") if each.is_file())
    assert len(files) > 223
    with house.daemon():
        case = house.directory / "incoming" / NAME
        early = _copy_slowly(house, delivered, files, case)
        assert not early, f"taken while it was copied: {early}"
        house.wait_state("done", "held", limit=60)
    found = house.cases()
    assert [(each["state"], each["name"]) for each in found] == [("done", NAME)]
    assert len(house.starts()) == 2
    assert hashes(house.results) == house.expected(delivered)
    house.mqi("archive", "restore", NAME, "--to", str(house.directory / "restored"))
    restored = hashes(house.directory / "restored")
    for name, digest in hashes(delivered).items():
        assert [each for path, each in restored.items() if path.endswith(name)] == [digest]


def _copy_slowly(house: House, delivered: Path, files: list[Path], case: Path) -> set[str]:
    """Copy file by file; return the states other than `settling` that were seen on the way."""
    looks = []
    with ThreadPoolExecutor(1) as beside:  # whoever looks must not hold up the copy: a pause is what ends it
        for number, file in enumerate(files):
            target = case / file.relative_to(delivered)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)
            if number % 60 == 59:
                looks.append(beside.submit(house.cases))
            time.sleep(PAUSE)  # the pace of the copy, which is what is tested; nothing is waited for
    return {each["state"] for look in looks for each in look.result()} - {"settling"}
