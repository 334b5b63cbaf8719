"""Case names that are meant to break shells, formats and terminals are carried as any other, or refused with a reason."""

from __future__ import annotations

from faults.checker import NAMES, check
from faults.plant import Plant, crew
from servers.house import PATIENT, wait_for

ODD = (
    ";touch pwned", "$(touch pwned)", "`touch pwned`", "-rf", "--help", "a b  c", "'quoted\"", "%s%n", "{0}{case_name}",
    "${HOME}", "日本語 😀", "\u202egnp.exe", "*", "a" * 200, "~root", "&& false", "name|cat", "\\n",
)  # fmt: skip


def test_hostile_case_names_are_carried_through_every_step(plant: Plant) -> None:
    plant.configure()
    for name, odd in zip(plant.drop(len(ODD)), ODD, strict=True):
        plant.rename(name, odd)
    with crew(plant):
        plant.wait_done()
    check(plant)
    assert not list(plant.directory.rglob("*pwned")) or all(
        "touch" in each.name for each in plant.directory.rglob("*pwned")
    )
    told = "".join(file.read_text() for file in plant.directory.glob("*.log"))
    for name in (*NAMES, "pwned", "日本", "gnp.exe", "aaaaaaaaaaaa"):
        assert name not in told


def test_names_that_no_terminal_or_file_can_bear_are_refused_with_one_alert(plant: Plant) -> None:
    plant.configure()
    good = plant.drop(1)
    bad = plant.directory / "incoming" / f"{PATIENT}\nINFO forged: line"
    bad.mkdir()
    (bad / "READY").write_bytes(b"")
    with crew(plant):
        plant.wait_done()
        wait_for(lambda: alerts(plant), "an alert", stand=plant.stand)
        assert PATIENT not in "".join(alerts(plant))
    assert list(plant.states()) == good
    (bad / "READY").unlink()
    bad.rmdir()
    check(plant)


def alerts(plant: Plant) -> list[str]:
    with plant.store() as store:
        return [alert["text"] for alert in store.switches.alerts()]
