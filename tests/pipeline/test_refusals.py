"""What goes wrong says what, where and what to do, with the exit code that scripts rely on; and never tells a secret or a name."""

from __future__ import annotations

import re

import pytest

from mqi_cli.errors import EXIT_ALREADY_RUNNING, EXIT_BROKER, EXIT_CONFIG, EXIT_HOST
from servers.house import NAME, PATIENT, STUDY, House
from servers.rabbitmq import RabbitNode

ARCHIVED = re.compile(r"c[a-z2-7]{10}\.json")


@pytest.mark.parametrize(
    ("simulate", "outputs", "words"),
    [
        ("sh -c 'exit 3'", '"dose/*.raw"', ("exit code 3",)),
        ("echo Total execution time: 1 s", '"dose/*.raw"', ("output",)),
    ],
    ids=["exit-code-3", "writes-no-output"],
)
def test_a_run_that_fails_holds_the_case_and_why_tells_the_reason(
    house: House, simulate: str, outputs: str, words: tuple[str, ...]
) -> None:
    house.configure(simulate=simulate.replace('"', '\\"'), outputs=outputs)
    house.drop_case()
    with house.daemon():
        house.wait_state("held", "done")
        why = house.mqi("case", "why", NAME, code=None)
        again = house.mqi("daemon", "start", code=EXIT_ALREADY_RUNNING)
        meanwhile = artefacts(house)
    assert house.cases()[0]["state"] == "held"
    assert "simulate" in why
    assert f"mqi exec logs {house.cases()[0]['key']} simulate" in why
    assert all(word in why for word in words), why
    assert "running" in again
    names_nothing(house, meanwhile)


def test_a_host_whose_key_is_not_known_is_refused_with_what_to_do(house: House) -> None:
    house.configure(complete_when="manual", known_hosts=house.directory / "known_hosts")
    house.mqi("case", "add", str(house.drop_case()))
    said = house.mqi("transfer", "upload", NAME, code=EXIT_HOST)
    assert "mqi host trust gpu" in said
    assert not list(house.far.iterdir())


def test_a_wrong_broker_password_is_said_and_never_shown(house: House, rabbitmq: RabbitNode) -> None:
    secret = house.directory / "broker.secret"
    secret.write_text("not-the-password-4711")
    secret.chmod(0o600)
    house.configure(broker=f"broker: {{url: '{rabbitmq.url}', password_file: {secret}, prefix: refused}}")
    said = house.mqi("dead", "list", code=EXIT_BROKER)
    assert "password" in said
    doctor = house.mqi("doctor", code=1)
    assert "broker" in doctor.lower()
    for text in (said, doctor, *artefacts(house).values()):
        assert "not-the-password-4711" not in text


def test_a_typing_error_in_the_config_names_its_line_and_the_key_that_was_meant(house: House) -> None:
    house.configure()
    text = house.config.read_text().replace("complete_when:", "complet_when:")
    house.config.write_text(text)
    line = text[: text.index("complet_when")].count("\n") + 1
    said = house.mqi("daemon", "start", code=EXIT_CONFIG)
    assert f"mqi.yaml:{line}" in said
    assert "complete_when" in said
    assert not house.processes()


def test_no_name_of_a_case_or_file_is_in_logs_messages_or_remote_paths(house: House) -> None:
    house.configure()
    house.drop_case()
    with house.daemon():
        house.wait_state("done")
        meanwhile = artefacts(house)
    names_nothing(house, meanwhile)


def artefacts(house: House) -> dict[str, str]:
    """Return what the daemon has written, by file: logs, status, messages, even those that were taken and deleted.

    Left out: the state database and the archives' index, which name cases and are their owner's alone.
    """
    found = {}
    for file in (each for each in house.state.rglob("*") if each.is_file()):
        if file.name.startswith("state.db") or ARCHIVED.fullmatch(file.name):
            assert file.stat().st_mode & 0o077 == 0, f"others may read {file.name}"
        else:
            found[str(file.relative_to(house.state))] = file.read_bytes().decode("latin-1")
    return found


def names_nothing(house: House, meanwhile: dict[str, str]) -> None:
    """Assert that nothing outside the state database tells whose case it was, while the daemon ran and afterwards."""
    key = house.cases()[0]["key"]
    assert [name for name, text in meanwhile.items() if name.endswith(".log") and key in text]
    assert [name for name, text in meanwhile.items() if "queue" in name and key in text]
    for name, text in [*meanwhile.items(), *artefacts(house).items()]:
        for secret in (PATIENT, STUDY, ".ptn", ".mgn", "PlanInfo"):
            assert secret not in text, f"{name} tells {secret}"
    remote = [str(each.relative_to(house.far)) for each in house.far.rglob("*") if "/input/" not in str(each)]
    assert not [each for each in remote if PATIENT in each or STUDY in each]
