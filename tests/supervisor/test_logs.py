"""The processes' logs: what is in a line, what never is, and how the files are kept small."""

from __future__ import annotations

import io
import json
import logging
import os
import re
import resource
import signal
from pathlib import Path

import pytest
from pydantic import SecretStr

from mqi_cli import logfile
from mqi_cli.config.loaded import Config
from mqi_cli.config.model import BrokerSection, LogSection
from mqi_cli.errors import HostFault
from mqi_cli.logfile import Lines, LogFile, Tail, last_lines
from mqi_cli.logs import config_secrets, crashes_logged, describe_bug, setup_logging
from mqi_cli.printable import printable
from supervisor.bench import Bench, Programs

NAME = "DOE^JANE"


def _record(level: str = "info", *, json_lines: bool = False, secrets: tuple[str, ...] = ()) -> io.StringIO:
    stream = io.StringIO()
    section = LogSection(level=level, format="json" if json_lines else "text")
    setup_logging(section, "sftp-1", secrets=secrets, stream=stream)
    return stream


def test_a_text_line_holds_time_level_process_case_and_step() -> None:
    stream = _record()
    log = logging.LoggerAdapter(logging.getLogger("mqi.test"), {"case": "cabcdefghij", "step": "upload"})
    log.info("took %d files", 3)
    pattern = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z INFO    sftp-1: \[cabcdefghij upload\] took 3 files\n"
    assert re.fullmatch(pattern, stream.getvalue())


def test_a_json_line_holds_the_same_as_fields() -> None:
    stream = _record(json_lines=True)
    log = logging.LoggerAdapter(logging.getLogger("mqi.test"), {"case": "cabcdefghij", "step": "upload"})
    log.warning("größer")
    line = json.loads(stream.getvalue())
    assert line.pop("at").endswith("Z")
    assert line == {"level": "warning", "process": "sftp-1", "case": "cabcdefghij", "step": "upload", "text": "größer"}


def test_hostile_text_stays_one_line_without_controls() -> None:
    stream = _record()
    logging.getLogger("mqi").info("a\nb\r\x1b[2J\u202ec\udc80\u2028d\x9b")
    assert stream.getvalue().count("\n") == 1
    assert stream.getvalue().endswith(": a\\nb\\r\\x1b[2J\\u202ec\\x80\\u2028d\\x9b\n")


def test_secrets_are_blanked_out_wherever_they_show() -> None:
    stream = _record(secrets=("s3cret-value", "s3cret"))
    logging.getLogger("mqi").info("with s3cret-value at amqps://mqi:open-word@host/x, password=hidden-one; token: abc")
    text = stream.getvalue()
    assert "amqps://mqi:[secret]@host/x" in text
    assert not any(each in text for each in ("s3cret", "-value", "open-word", "hidden-one", "abc"))


def test_every_secret_of_a_config_is_found() -> None:
    config = Config(
        file=None,
        state_path=Path("/x/state.db"),
        key_salt="salt-salt",
        broker=BrokerSection(url="amqp://h", password=SecretStr("broker-password")),
        sections={"notices": {"targets": [{"key": SecretStr("deep-down")}]}},
    )
    assert set(config_secrets(config)) == {"salt-salt", "broker-password", "deep-down"}


def _fail() -> None:
    try:
        Path(f"/nowhere/{NAME}.dcm").read_bytes()
    except OSError as error:
        raise ValueError(f"cannot use {NAME}") from error


def test_a_bugs_traceback_says_where_but_not_on_what() -> None:
    stream = _record()
    try:
        _fail()
    except ValueError:
        logging.getLogger("mqi").exception("a bug")
    text = stream.getvalue()
    assert NAME not in text
    assert "FileNotFoundError: No such file or directory" in text
    assert re.search(r"test_logs\.py:\d+ in _fail", text)
    assert all(" ERROR   sftp-1: " in line for line in text.splitlines())


def test_harmless_messages_stay_in_a_traceback() -> None:
    assert describe_bug(HostFault("the host says no", host="hpc"))[-1] == "HostFault: the host says no"
    assert describe_bug(TypeError("f() missing 1 argument"))[-1] == "TypeError: f() missing 1 argument"
    assert describe_bug(KeyError(NAME))[-1] == "KeyError"


def test_talkative_libraries_are_quiet_even_at_debug() -> None:
    stream = _record("debug")
    logging.getLogger("paramiko.transport.sftp").debug("open(b'/data/%s')", NAME)
    logging.getLogger("mqi").debug("ours")
    assert NAME not in stream.getvalue()
    assert "ours" in stream.getvalue()


def test_a_crash_of_a_child_ends_up_in_its_log_without_the_name(bench: Bench, program: Programs) -> None:
    crashing = f"""
        import threading
        from mqi_cli.child import become_child
        from mqi_cli.config.model import LogSection
        from mqi_cli.logs import setup_logging
        beat = become_child()
        setup_logging(LogSection(), beat.process)
        def fails():
            open("/nowhere/{NAME}")
        thread = threading.Thread(target=fails)
        thread.start()
        thread.join()
        fails()
    """
    child = bench.start(program("worker-1", crashing)).children["worker-1"]
    bench.until(lambda: child.restarts == 1)
    text = bench.log("worker-1")
    assert text.count("CRITICAL worker-1: crashed") == 2
    assert "in fails" in text
    assert "OUTPUT" not in text
    assert NAME not in text


def test_a_bug_in_a_main_function_is_logged_without_the_name_and_has_its_exit_code() -> None:
    stream = _record()

    @crashes_logged()
    def main(error: Exception) -> None:
        raise error

    with pytest.raises(SystemExit) as ended:
        main(ValueError(NAME))
    assert ended.value.code == 70
    assert "ValueError" in stream.getvalue()
    assert NAME not in stream.getvalue()
    with pytest.raises(HostFault):
        main(HostFault("known", host="hpc"))


def test_a_log_is_rotated_by_size_and_the_oldest_is_dropped(tmp_path: Path) -> None:
    file = LogFile(tmp_path / "logs" / "x.log", max_size=1000, keep=2)
    for number in range(100):
        file.write(f"{number:04d} {'x' * 94}")
    file.close()
    paths = sorted((tmp_path / "logs").iterdir())
    assert [path.name for path in paths] == ["x.log", "x.log.1", "x.log.2"]
    assert all(path.stat().st_size <= 1000 for path in paths)
    kept = "".join(path.read_text() for path in reversed(paths))
    numbers = [int(line[:4]) for line in kept.splitlines()]
    assert numbers == list(range(70, 100))
    assert paths[0].stat().st_mode & 0o077 == 0


def test_a_full_disk_costs_lines_and_says_how_many(tmp_path: Path) -> None:
    file = LogFile(tmp_path / "x.log", max_size=10**6, keep=2)
    file.write("before")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (7, hard))
    try:
        file.write("lost one")
        file.write("lost two")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    file.write("after")
    file.close()
    assert (tmp_path / "x.log").read_text() == "before\n[2 lines were lost: the log could not be written]\nafter\n"


def test_lines_are_cut_out_of_any_pieces_and_an_endless_one_is_cut_short() -> None:
    lines = Lines()
    assert lines.feed(b"on") == []
    assert lines.feed(b"e\ntwo\r\nthr") == ["one", "two"]
    assert lines.end() == ["thr"]
    got = [line for _ in range(10) for line in lines.feed(b"y" * 30_000)]
    got += lines.feed(b"\nnext\n")
    assert got[-1] == "next"
    assert len(got) <= 4
    assert all(len(line) <= 65536 for line in got)


def test_the_last_lines_of_a_large_file(tmp_path: Path) -> None:
    path = tmp_path / "x.log"
    path.write_text("".join(f"line {number}\n" for number in range(20_000)))
    assert last_lines(path, 3) == ["line 19997", "line 19998", "line 19999"]
    assert len(last_lines(path, 15_000)) == 15_000
    assert last_lines(path, 0) == []
    assert last_lines(tmp_path / "none.log", 5) == []


def test_following_a_log_goes_on_across_rotations(tmp_path: Path) -> None:
    path = tmp_path / "x.log"
    file = LogFile(path, max_size=100, keep=3)
    file.write("old")
    tail = Tail(path)
    got = []
    for number in range(10):
        file.write(f"{number} {'z' * 40}")
        got += tail.read()
    tail.close()
    file.close()
    assert [line[0] for line in got] == [str(number) for number in range(10)]


def test_a_line_that_comes_just_before_a_rotation_is_followed_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = LogFile(tmp_path / "x.log", max_size=50, keep=3)
    file.write("old")
    tail = Tail(tmp_path / "x.log")
    replaced = logfile._replaced

    def rotated_in_between(path: Path, opened: os.stat_result) -> bool:
        file.write("just before")
        file.write("after " + "z" * 44)
        return replaced(path, opened)

    monkeypatch.setattr(logfile, "_replaced", rotated_in_between)
    assert [line.split()[0] for line in tail.read()] == ["just", "after"]
    tail.close()
    file.close()


@pytest.mark.parametrize("text", ["plain", "größer 東京", ""])
def test_ordinary_text_is_left_alone(text: str) -> None:
    assert printable(text) == text
