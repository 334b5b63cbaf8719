"""Every stage by hand, in order, with no daemon and no broker."""

from __future__ import annotations

from servers.house import NAME, House, hashes


def test_an_operator_takes_a_case_through_every_stage_by_hand(house: House) -> None:
    house.configure(complete_when="manual")
    case = house.drop_case()
    house.mqi("case", "add", str(case))
    house.mqi("transfer", "upload", NAME)
    house.mqi("exec", "run", NAME, "--step", "interpret")
    house.mqi("exec", "run", NAME, "--step", "simulate")
    house.mqi("transfer", "download", NAME, "--step", "fetch_sums")
    house.mqi("transfer", "download", NAME, "--step", "fetch_dose")
    house.mqi("archive", "run", NAME)
    assert [each["state"] for each in house.cases()] == ["done"]
    assert [start[1] for start in house.starts()] == ["interpret", "simulate"]
    assert hashes(house.results) == house.expected(case)
    house.mqi("archive", "restore", NAME, "--to", str(house.directory / "restored"))
    restored = hashes(house.directory / "restored")
    assert set(hashes(case).values()) <= set(restored.values())
    assert not house.processes()


def test_a_file_that_changed_on_the_far_side_is_named_and_the_exit_code_is_one(house: House) -> None:
    house.configure(complete_when="manual")
    case = house.drop_case()
    house.mqi("case", "add", str(case))
    house.mqi("transfer", "upload", NAME)
    house.mqi("transfer", "verify", NAME)
    victim = sorted(house.far.glob("*/input/*/*.ptn"))[0]
    data = bytearray(victim.read_bytes())
    data[0] ^= 1
    victim.chmod(0o600)
    victim.write_bytes(data)
    said = house.mqi("transfer", "verify", NAME, code=1)
    assert victim.name in said
    assert said.count(".ptn") == 1
