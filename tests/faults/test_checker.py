"""The checker finds what it is there to find: each promise is broken by hand once, in what a good run left."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable

from faults.checker import check, faults
from faults.plant import Plant, crew
from mqi_cli.broker.base import Outgoing
from mqi_cli.broker.embedded import EmbeddedBroker


def sql(statement: str) -> Callable[[Plant], None]:
    def spoil(plant: Plant) -> None:
        connection = sqlite3.connect(plant.state / "state.db")
        connection.execute("PRAGMA foreign_keys = off")
        with connection:
            assert connection.execute(statement).rowcount > 0
        connection.close()

    return spoil


def append(file: str, text: str) -> Callable[[Plant], None]:
    def spoil(plant: Plant) -> None:
        with (plant.directory / file).open("a") as target:
            target.write(text)

    return spoil


def first(pattern: str, data: bytes | None) -> Callable[[Plant], None]:
    def spoil(plant: Plant) -> None:
        found = sorted(plant.directory.glob(pattern))[0]
        found.unlink() if data is None else found.write_bytes(data)

    return spoil


def poison(plant: Plant) -> None:
    broker = EmbeddedBroker(plant.state / "queue.db")
    broker.publish([Outgoing("sftp", "x", b"no JSON")])
    delivery = broker.take("sftp", timeout=5)
    assert delivery is not None
    broker.reject(delivery, reason="not JSON")
    broker.close()


def tear(plant: Plant) -> None:
    with (plant.state / "state.db").open("r+b") as file:
        for page in range(1, plant.state.joinpath("state.db").stat().st_size // 4096):
            file.seek(4096 * page)
            file.write(b"\xff" * 64)


def done_twice(plant: Plant) -> None:
    connection = sqlite3.connect(plant.state / "state.db")
    connection.row_factory = sqlite3.Row
    row = dict(connection.execute("SELECT * FROM part WHERE state = 'done' LIMIT 1").fetchone())
    row = {**row, "id": None, "attempt": row["attempt"] + 1}
    marks = ", ".join("?" * len(row))
    with connection:
        connection.execute(f"INSERT INTO part ({', '.join(row)}) VALUES ({marks})", list(row.values()))
    connection.close()


def uncleared(plant: Plant) -> None:
    (plant.far / plant.starts()[0][0]).mkdir()


LINE = "{0} compute 1 4711 _ 99\n"
BREACHES: dict[str, tuple[str, Callable[[Plant], None]]] = {
    "a case that vanished": ("is lost", sql("DELETE FROM case_ WHERE id = 1")),
    "a case that nobody dropped": ("is unexpected", sql("UPDATE case_ SET name = 'other' WHERE id = 1")),
    "a case taken twice": ("was taken 2 times", sql("UPDATE case_ SET revision = 2, name = (SELECT name FROM case_ WHERE id = 2) WHERE id = 1")),
    "a case that stands still": ("is running", sql("UPDATE case_ SET state = 'running' WHERE id = 1")),
    "a part that stands still": ("is still working", sql("UPDATE part SET state = 'working' WHERE id = 1")),
    "an event applied twice": ("applied 2 times", sql("INSERT INTO event (at, case_id, step, part, attempt, kind, actor, text, detail) SELECT at, case_id, step, part, attempt, kind, actor, text, detail FROM event WHERE kind = 'done' LIMIT 1")),
    "a command that was never sent": ("never sent", sql("INSERT INTO outbox (message, part_id, lane, body, created_at) VALUES ('m', 1, 'sftp', x'00', 1)")),
    "a run begun twice": ("was started 2 times", append("ledger", LINE)),
    "a run of an unknown case": ("nobody knows", append("ledger", "caaaaaaaaaa compute 1 4711 _ 99\n")),
    "a second attempt nobody asked for": ("runs were started", append("ledger", LINE.replace(" 1 ", " 2 "))),
    "a run that never began": ("no run of it began", first("ledger", b"")),
    "a wrong result": ("is wrong", first("results/*/sums.txt", b"wrong")),
    "a missing result": ("is missing", first("results/*/sums.txt", None)),
    "a partial file": ("was left behind", append("results/.sums.part", "x")),
    "a missing archive": ("is missing", first("archive/*.tar", None)),
    "an archive of other bytes": ("holds other bytes", first("archive/*.tar", b"\0" * 10240)),
    "a part done twice": ("done 2 times", done_twice),
    "a GPU that was not given back": ("still leased", sql("INSERT INTO gpu (uuid, host, number, name, processes, present, held, lease_part_id, seen_at) VALUES ('G', 'gpu', 0, '', '[]', 1, 0, 1, 1)")),
    "a case that stayed on its host": ("not cleared", uncleared),
    "half an archive": ("left behind", append("archive/.x.tar.partial", "x")),
    "a changed source": ("was changed", first("incoming/*/*.plan", b"x")),
    "a forgotten file in the state": ("was left behind", append("state/tmp4711", "x")),
    "a dead letter": ("1 dead letters", poison),
    "a name in a log": ("tells ZZPATIENT", append("sftp.log", "ZZPATIENT0815\n")),
    "a secret in a log": ("tells a secret", append("sftp.log", "s3cret-4711\n")),
    "a torn database": ("state.db", tear),
}  # fmt: skip


def test_every_breach_is_found(plant: Plant) -> None:
    plant.configure()
    plant.secrets.append("s3cret-4711")
    plant.drop(2)
    with crew(plant):
        plant.wait_done()
    check(plant)

    key = plant.starts()[0][0]
    copy = plant.directory.with_name(plant.directory.name + "-good")
    shutil.copytree(plant.directory, copy, symlinks=True)
    try:
        missed = []
        for what, (sentence, spoil) in BREACHES.items():
            spoil(plant)
            ledger = plant.ledger_file.read_text()
            plant.ledger_file.write_text(ledger.replace("{0}", key))
            found = faults_or_error(plant)
            if not any(sentence in each for each in found):
                missed.append(f"{what}: {found}")
            shutil.rmtree(plant.directory)
            shutil.copytree(copy, plant.directory, symlinks=True)
        assert missed == []
        check(plant)
    finally:
        shutil.rmtree(copy)


def faults_or_error(plant: Plant) -> list[str]:
    try:
        return faults(plant)
    except sqlite3.DatabaseError as error:
        return [f"state.db: {error}"]
