"""What every host promises, held against this machine and against a real OpenSSH server alike."""

from __future__ import annotations

import hashlib
import io
import os
import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import pytest

from mqi_cli.errors import HostError, HostFault, HostUnreachable
from mqi_cli.hosts.base import Copying, Files, Host
from mqi_cli.hosts.ssh import SshHost

ODD_NAMES = [
    "plain.ptn",
    "with space",
    "-rf",
    "--help",
    "it's",
    'a "quote"',
    "$(touch owned)",
    "`id`",
    "semi;colon & more | pipe",
    "back\\slash",
    "new\nline",
    "tab\tbed",
    "star*?[a-z]",
    "~",
    "%s{0}",
    "!history",
    "é — 量 🜚",
    "a" * 255,
]
ODD_ARGUMENTS = [
    *ODD_NAMES,
    "",
    "a b  c ",
    "$HOME",
    "${x:-1}",
    "\\n",
    "\\",
    "''",
    "\n",
    "\n\n",
    "#not",
    "\udcff raw byte",
]


needs_hang_up = pytest.mark.usefixtures("_hangs_up")


@pytest.fixture
def _hangs_up(host: Host) -> None:
    """OpenSSH passes no signal on in a session of root's; anywhere else it does."""
    if isinstance(host, SshHost) and os.geteuid() == 0:
        pytest.skip("an OpenSSH session of root passes no signals on")


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


# -- programs ----------------------------------------------------------------------------------------------------------


def test_a_program_gives_its_exit_code_and_both_streams(host: Host) -> None:
    done = host.run(["sh", "-c", "echo out; echo err >&2; exit 3"])
    assert (done.code, done.stdout, done.stderr) == (3, b"out\n", b"err\n")


def test_every_argument_arrives_as_it_is(host: Host) -> None:
    done = host.run(["printf", "%s\\0", *ODD_ARGUMENTS])
    assert [part.decode("utf-8", "surrogateescape") for part in done.stdout.split(b"\0")[:-1]] == ODD_ARGUMENTS


def test_large_arguments_arrive_whole(host: Host) -> None:
    text = 'it\'s "large" $HOME\n`x` \\ ' * 1500
    assert host.run(["printf", "%s", text]).stdout == text.encode()


def test_an_argument_list_that_no_host_takes_is_refused_before_it_is_sent(host: Host) -> None:
    with pytest.raises(HostFault):
        host.run(["printf", "%s", "x" * 3_000_000])


def test_a_nul_in_an_argument_is_refused(host: Host) -> None:
    with pytest.raises(HostFault):
        host.run(["printf", "a\0b"])


def test_standard_input_arrives_whole(host: Host) -> None:
    data = os.urandom(3_000_000)
    assert host.run(["sha256sum"], stdin=data).text.split()[0] == sha256(data)


def test_a_program_that_reads_no_input_does_not_hang(host: Host) -> None:
    assert host.run(["true"], stdin=b"x" * 3_000_000).code == 0


def test_input_and_output_flow_at_the_same_time(host: Host) -> None:
    data = os.urandom(3_000_000)
    assert host.run(["cat"], stdin=data, limit=10_000_000).stdout == data


def test_a_megabyte_on_both_streams_comes_through(host: Host) -> None:
    script = "i=0; while [ $i -lt 1000 ]; do printf '%01000d' 1; printf '%01000d' 2 >&2; i=$((i+1)); done"
    done = host.run(["sh", "-c", script])
    assert (done.code, len(done.stdout), len(done.stderr)) == (0, 1_000_000, 1_000_000)


def test_output_beyond_the_limit_is_read_and_dropped(host: Host) -> None:
    done = host.run(["sh", "-c", "head -c 5000000 /dev/zero; echo end >&2; exit 4"], limit=1000)
    assert (done.code, len(done.stdout), done.stderr) == (4, 1000, b"end\n")


def test_an_end_by_signal_has_no_code(host: Host) -> None:
    assert host.run(["sh", "-c", "kill -9 $$"]).code is None


def test_a_program_that_is_not_there_has_code_127(host: Host) -> None:
    assert host.run(["mqi-no-such-program"]).code == 127


def test_a_program_that_takes_too_long_is_given_up(host: Host) -> None:
    began = time.monotonic()
    with pytest.raises(HostUnreachable, match=r"within 0\.5 s"):
        host.run(["sh", "-c", "exec sleep 3"], timeout=0.5)
    assert time.monotonic() - began < 2.5


@needs_hang_up
def test_a_program_that_takes_too_long_is_ended(host: Host, place: PurePosixPath) -> None:
    with pytest.raises(HostUnreachable, match="within"):
        host.run(["sh", "-c", f"echo $$ >'{place}/pid'; exec sleep 600"], timeout=1)
    wait_gone(int(Path(place / "pid").read_text()))


def test_what_a_program_leaves_running_does_not_hold_up_its_end(host: Host, place: PurePosixPath) -> None:
    began = time.monotonic()
    done = host.run(["sh", "-c", "sleep 600 & echo $!"], timeout=30)
    assert done.code == 0
    assert time.monotonic() - began < 10
    os.kill(int(done.stdout), 9)


def test_programs_start_in_the_home_directory(host: Host) -> None:
    assert host.run(["pwd"]).text.strip() == str(Path.home())


def test_bulk_data_streams_through_a_program(host: Host) -> None:
    data = os.urandom(5_000_000)
    with host.start(["gzip", "-1", "-c"]) as process:
        # one after the other works because random bytes do not shrink below what pipes and windows hold back
        def feed() -> None:
            process.stdin.write(data)
            process.stdin.close()

        feeder = threading.Thread(target=feed)
        feeder.start()
        packed = process.stdout.read()
        feeder.join()
        done = process.wait(10)
    import gzip

    assert (done.code, done.stdout) == (0, b"")
    assert gzip.decompress(packed) == data


@pytest.mark.parametrize("size", [0, 1, 300_000, 3_000_000])
@pytest.mark.parametrize("bulk", [False, True])
def test_an_open_file_is_passed_on_from_its_position_between_other_bytes(
    host: Host, tmp_path: Path, size: int, bulk: bool
) -> None:
    data = os.urandom(size)
    (tmp_path / "file").write_bytes(b"skipped" + data)

    with host.start(["sha256sum"], bulk=bulk) as process, (tmp_path / "file").open("rb", buffering=0) as source:
        source.seek(7)
        process.stdin.write(b"before")
        while process.pass_on(source, 1 << 20):
            pass
        process.stdin.write(b"behind")
        done = process.wait(10)

    assert done.text.split()[0] == hashlib.sha256(b"before" + data + b"behind").hexdigest()


def test_a_stream_that_was_not_read_is_returned_at_the_end(host: Host) -> None:
    with host.start(["sh", "-c", "echo first; echo second; echo bad >&2; exit 5"]) as process:
        assert process.stdout.readline() == b"first\n"
        done = process.wait(10)
    assert (done.code, done.stdout, done.stderr) == (5, b"second\n", b"bad\n")


def test_only_the_end_of_the_errors_is_kept(host: Host) -> None:
    with host.start(["sh", "-c", "head -c 1000000 /dev/zero >&2; echo last >&2"]) as process:
        done = process.wait(10)
    assert len(done.stderr) == 64 * 1024
    assert done.stderr.endswith(b"last\n")


def test_a_stream_gets_no_end_in_time(host: Host) -> None:
    with host.start(["sleep", "3"]) as process, pytest.raises(HostUnreachable):
        process.wait(0.5)


@needs_hang_up
def test_leaving_the_context_ends_the_program(host: Host, place: PurePosixPath) -> None:
    with host.start(["sh", "-c", "echo $$; exec sleep 600"]) as process:
        pid = int(process.stdout.readline())
    wait_gone(pid)


def test_writing_to_a_program_that_has_ended_is_an_error(host: Host) -> None:
    with host.start(["true"]) as process, pytest.raises(HostFault):
        while True:
            process.stdin.write(b"x" * 100_000)
            process.stdin.flush()


@pytest.mark.parametrize("bulk", [False, True])
@pytest.mark.parametrize("in_pieces", [False, True])
def test_a_program_that_reads_nothing_is_broken_off_from_another_thread(
    host: Host, tmp_path: Path, bulk: bool, in_pieces: bool
) -> None:
    (tmp_path / "file").write_bytes(bytes(1 << 20))
    ends: list[object] = []
    stuck = threading.Event()

    def write() -> None:
        try:
            with host.start(["sleep", "20"], bulk=bulk) as process, (tmp_path / "file").open("rb", buffering=0) as file:
                threading.Timer(1.0, lambda: (stuck.set(), process.abort())).start()
                while True:
                    file.seek(0)
                    process.stdin.write(bytes(8000)) if in_pieces else process.pass_on(file, 1 << 20)
        except HostError as error:
            ends.append((error, stuck.is_set()))

    writer = threading.Thread(target=write, daemon=True)
    writer.start()
    writer.join(15)

    assert not writer.is_alive()
    ((_, was_stuck),) = ends
    assert was_stuck, "it was not the abort that ended it"


# -- files -------------------------------------------------------------------------------------------------------------


def test_a_file_comes_back_as_it_was_written(files: Files, place: PurePosixPath) -> None:
    data = os.urandom(20_000_003)
    sent: list[int] = []
    got: list[int] = []
    assert files.write(place / "big", io.BytesIO(data), sent=sent.append) == len(data)
    back = io.BytesIO()
    assert files.read(place / "big", back, got=got.append) == len(data)
    assert sha256(back.getvalue()) == sha256(data)
    assert (sum(sent), sum(got)) == (len(data), len(data))


@pytest.mark.parametrize("size", [0, 1, 32 * 1024 - 1, 32 * 1024, 261120, 261121, 1024 * 1024])
def test_any_size_comes_back(files: Files, place: PurePosixPath, size: int) -> None:
    data = os.urandom(size)
    assert files.write(place / "file", io.BytesIO(data)) == size
    back = io.BytesIO()
    assert files.read(place / "file", back) == size
    assert back.getvalue() == data


@pytest.mark.parametrize("name", ODD_NAMES)
def test_odd_names_are_only_names(files: Files, place: PurePosixPath, name: str) -> None:
    files.make_directory(place / name)
    files.write(place / name / name, io.BytesIO(b"x"))
    assert [each.name for each in files.listing(place / name)] == [name]
    entry = files.stat(place / name / name)
    assert entry is not None and entry.is_file and entry.name == name
    files.remove_tree(place / name)
    assert list(files.listing(place)) == []


def test_a_source_that_gives_little_at_a_time_is_written_whole(files: Files, place: PurePosixPath) -> None:
    class Dripping(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            return super().read(min(size or 1, 1000))

    data = os.urandom(123_456)
    assert files.write(place / "file", Dripping(data)) == len(data)
    assert Path(place / "file").read_bytes() == data


def test_writing_goes_on_from_the_source_s_position(files: Files, place: PurePosixPath) -> None:
    source = io.BytesIO(b"0123456789")
    source.seek(4)
    assert files.write(place / "file", source) == 6
    assert Path(place / "file").read_bytes() == b"456789"


def test_writing_again_empties_the_file_first(files: Files, place: PurePosixPath) -> None:
    files.write(place / "file", io.BytesIO(b"a long first text"))
    files.write(place / "file", io.BytesIO(b"short"))
    assert Path(place / "file").read_bytes() == b"short"


def test_writing_at_an_offset_cuts_what_was_behind_it(files: Files, place: PurePosixPath) -> None:
    files.write(place / "file", io.BytesIO(b"0123456789"))
    assert files.write(place / "file", io.BytesIO(b"ab"), offset=4) == 2
    assert Path(place / "file").read_bytes() == b"0123ab"


def test_writing_beyond_the_end_is_refused(files: Files, place: PurePosixPath) -> None:
    files.write(place / "file", io.BytesIO(b"0123"))
    with pytest.raises(HostFault, match="4 of 9 bytes"):
        files.write(place / "file", io.BytesIO(b"ab"), offset=9)
    assert Path(place / "file").read_bytes() == b"0123"


def test_a_file_gets_exactly_the_permissions_asked_for(files: Files, place: PurePosixPath) -> None:
    files.write(place / "file", io.BytesIO(b"x"), mode=0o604)
    files.write_bytes(place / "small", b"x", mode=0o600)
    assert stat.S_IMODE(Path(place / "file").stat().st_mode) == 0o604
    assert stat.S_IMODE(Path(place / "small").stat().st_mode) == 0o600


def test_a_part_of_a_file_can_be_read(files: Files, place: PurePosixPath) -> None:
    files.write(place / "file", io.BytesIO(b"0123456789"))
    part = io.BytesIO()
    assert files.read(place / "file", part, offset=3, size=4) == 4
    assert part.getvalue() == b"3456"
    rest = io.BytesIO()
    assert files.read(place / "file", rest, offset=8) == 2
    assert rest.getvalue() == b"89"


def test_a_file_that_is_shorter_than_asked_for_is_an_error(files: Files, place: PurePosixPath) -> None:
    files.write(place / "file", io.BytesIO(b"0123456789"))
    with pytest.raises(HostFault, match="ends too early"):
        files.read(place / "file", io.BytesIO(), size=11)
    with pytest.raises(HostFault, match="ends too early"):
        files.read(place / "file", io.BytesIO(), offset=20, size=1)


@pytest.mark.parametrize("keep", [0, 1, 300_000, 5_000_000 - 1])
def test_a_file_that_is_cut_while_it_is_read_is_an_error(files: Files, place: PurePosixPath, keep: int) -> None:
    path = place / "file"
    files.write(path, io.BytesIO(os.urandom(20_000_000)))

    class CuttingSink(io.BytesIO):
        def write(self, data: object, /) -> int:
            os.truncate(path, keep)
            return 0

    with pytest.raises(HostFault, match="ends too early"):
        files.read(path, CuttingSink())
    assert files.stat(path) is not None, "the channel goes on"


def test_an_error_of_the_local_end_passes_as_it_is(files: Files, place: PurePosixPath) -> None:
    class BrokenSource(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            if self.tell() > 2_000_000:
                raise OSError(5, "Input/output error")
            return super().read(size)

    class FullSink(io.BytesIO):
        def write(self, data: object, /) -> int:
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="Input/output error"):
        files.write(place / "file", BrokenSource(bytes(8_000_000)))
    files.write(place / "file", io.BytesIO(bytes(8_000_000)))
    with pytest.raises(OSError, match="No space left"):
        files.read(place / "file", FullSink())
    back = io.BytesIO()
    assert files.read(place / "file", back) == 8_000_000, "the channel goes on with nothing mixed up"


def test_stat_tells_what_is_there(files: Files, place: PurePosixPath) -> None:
    files.write(place / "file", io.BytesIO(b"12345"))
    files.make_directory(place / "directory")
    Path(place / "link").symlink_to("directory")
    file, directory, link = (files.stat(place / each) for each in ("file", "directory", "link"))
    assert file is not None and file.is_file and file.size == 5 and abs(file.mtime - time.time()) < 60
    assert directory is not None and directory.is_dir
    assert link is not None and not link.is_dir and not link.is_file and stat.S_ISLNK(link.mode)
    assert files.stat(place / "nothing") is None
    assert files.stat(place / "file" / "below a file") is None


def test_a_listing_shows_everything_but_follows_nothing(files: Files, place: PurePosixPath) -> None:
    files.make_directory(place / "directory")
    files.write(place / ".hidden", io.BytesIO(b"12"))
    Path(place / "dangling").symlink_to("nowhere")
    found = {each.name: each for each in files.listing(place)}
    assert set(found) == {"directory", ".hidden", "dangling"}
    assert found["directory"].is_dir
    assert found[".hidden"].size == 2
    assert not found["dangling"].is_file


def test_a_long_listing_is_complete(files: Files, place: PurePosixPath) -> None:
    for number in range(1500):
        Path(place / f"{number:05d}").touch()
    assert sorted(each.name for each in files.listing(place)) == [f"{number:05d}" for number in range(1500)]


def test_names_that_are_not_utf8_are_counted_and_refused(files: Files, place: PurePosixPath) -> None:
    for raw in (b"bad\xff", b"\xe9t\xe9"):
        (Path(place) / os.fsdecode(raw)).touch()
    files.write(place / "good", io.BytesIO(b""))
    with pytest.raises(HostFault, match=r"2 names .* not UTF-8"):
        list(files.listing(place))
    files.remove_tree(place)
    assert files.stat(place) is None, "they can be removed all the same"


def test_making_a_directory_is_a_claim_that_only_one_wins(files: Files, place: PurePosixPath) -> None:
    files.make_directory(place / "claim")
    with pytest.raises(FileExistsError):
        files.make_directory(place / "claim")
    files.make_directory(place / "claim", exist_ok=True)
    files.write(place / "file", io.BytesIO(b""))
    with pytest.raises(FileExistsError):
        files.make_directory(place / "file", exist_ok=True)


def test_missing_parents_are_made_only_when_asked_for(files: Files, place: PurePosixPath) -> None:
    with pytest.raises(HostFault, match="not there"):
        files.make_directory(place / "a" / "b" / "c")
    files.make_directory(place / "a" / "b" / "c", parents=True)
    files.make_directory(place / "a" / "b" / "c", parents=True, exist_ok=True)
    with pytest.raises(FileExistsError):
        files.make_directory(place / "a" / "b" / "c", parents=True)


def test_a_link_to_a_directory_counts_as_one_that_exists(files: Files, place: PurePosixPath) -> None:
    files.make_directory(place / "real")
    Path(place / "link").symlink_to("real")
    files.make_directory(place / "link", exist_ok=True)
    files.make_directory(place / "link" / "below", parents=True)


def test_small_files_are_read_at_once(files: Files, place: PurePosixPath) -> None:
    files.write_bytes(place / "small", b"text")
    assert files.read_bytes(place / "small", limit=4) == b"text"
    with pytest.raises(HostFault, match="more than 3 bytes"):
        files.read_bytes(place / "small", limit=3)
    with pytest.raises(FileNotFoundError):
        files.read_bytes(place / "nothing", limit=10)
    large = os.urandom(1_000_000)
    files.write_bytes(place / "larger", large)
    assert files.read_bytes(place / "larger", limit=1_000_000) == large


def test_a_small_file_replaces_another_and_leaves_no_draft(files: Files, place: PurePosixPath) -> None:
    files.write_bytes(place / ("n" * 255), b"first")
    files.write_bytes(place / ("n" * 255), b"second")
    assert files.read_bytes(place / ("n" * 255), limit=10) == b"second"
    files.make_directory(place / "directory")
    with pytest.raises(FileExistsError):
        files.write_bytes(place / "directory", b"x")
    assert sorted(each.name for each in files.listing(place)) == ["directory", "n" * 255]


def test_renaming_replaces_a_file_and_no_full_directory(files: Files, place: PurePosixPath) -> None:
    files.write_bytes(place / "new", b"new")
    files.write_bytes(place / "old", b"old")
    files.rename(place / "new", place / "old")
    assert files.read_bytes(place / "old", limit=9) == b"new"
    assert files.stat(place / "new") is None
    files.make_directory(place / "one")
    files.make_directory(place / "two" / "full", parents=True)
    with pytest.raises(FileExistsError):
        files.rename(place / "one", place / "two")
    with pytest.raises(FileExistsError):
        files.rename(place / "old", place / "two")
    files.rename(place / "two", place / "three")
    assert files.stat(place / "three" / "full") is not None
    with pytest.raises(HostFault, match="not there"):
        files.rename(place / "nothing", place / "something")


def test_times_and_permissions_can_be_set(files: Files, place: PurePosixPath) -> None:
    files.write_bytes(place / "file", b"x")
    files.set_times(place / "file", mtime=1_600_000_000.9, mode=0o400)
    found = files.stat(place / "file")
    assert found is not None
    assert (found.mtime, stat.S_IMODE(found.mode)) == (1_600_000_000, 0o400)


def test_removing_what_is_not_there_is_no_error(files: Files, place: PurePosixPath) -> None:
    files.remove(place / "nothing")
    files.remove_tree(place / "nothing")
    files.remove_tree(place / "nothing" / "below")


def test_a_link_is_removed_and_not_what_it_points_to(files: Files, place: PurePosixPath) -> None:
    files.write_bytes(place / "file", b"x")
    Path(place / "link").symlink_to("file")
    files.remove(place / "link")
    assert files.stat(place / "link") is None
    assert files.stat(place / "file") is not None


def test_removing_a_tree_follows_no_link(files: Files, place: PurePosixPath) -> None:
    files.make_directory(place / "keep")
    files.write_bytes(place / "keep" / "file", b"x")
    files.make_directory(place / "tree" / "deep" / "deeper", parents=True)
    for number in range(200):
        Path(place / "tree" / "deep" / f"{number}").touch()
    Path(place / "tree" / "link").symlink_to(Path(place / "keep"))
    Path(place / "tree" / "deep" / "up").symlink_to("..")
    files.remove_tree(place / "tree")
    assert files.stat(place / "tree") is None
    assert files.read_bytes(place / "keep" / "file", limit=1) == b"x"
    Path(place / "link").symlink_to("keep")
    files.remove_tree(place / "link")
    assert files.stat(place / "keep" / "file") is not None


def test_the_free_space_is_known_below_a_path_that_is_not_there_yet(files: Files, place: PurePosixPath) -> None:
    found = files.space(place / "not" / "yet")
    assert found is not None
    assert 0 < found.free_bytes < found.total_bytes
    assert found.free_inodes is None or found.free_inodes > 0


@pytest.mark.skipif(os.geteuid() == 0, reason="root may do anything")
def test_a_denied_operation_says_so(files: Files, place: PurePosixPath) -> None:
    Path(place).chmod(0o500)
    with pytest.raises(HostFault, match="permission denied"):
        files.write_bytes(place / "file", b"x")


def failures(files: Files, place: PurePosixPath) -> Iterator[object]:
    secret = place / "SECRET^NAME"
    yield lambda: files.read(secret, io.BytesIO())
    yield lambda: files.read_bytes(secret, limit=1)
    yield lambda: files.write(secret / "x", io.BytesIO(b"x"))
    yield lambda: files.write_bytes(secret / "x", b"x")
    yield lambda: files.write(secret, io.BytesIO(b"x"), offset=5)
    yield lambda: list(files.listing(secret))
    yield lambda: files.rename(secret, secret / "y")
    yield lambda: files.set_times(secret, mtime=1)
    yield lambda: files.make_directory(secret / "x")
    yield lambda: files.remove(place)


def test_no_error_names_a_path(host: Host, files: Files, place: PurePosixPath) -> None:
    for fail in failures(files, place):
        with pytest.raises((HostFault, FileNotFoundError)) as caught:
            fail()  # type: ignore[operator]
        said = f"{caught.value} {caught.value!r} {getattr(caught.value, 'hint', '')}"
        assert "SECRET" not in said
        assert str(place) not in said
        if isinstance(caught.value, HostFault):
            assert host.name in str(caught.value)
            assert caught.value.host == host.name


def test_several_threads_work_on_one_host(host: Host, place: PurePosixPath) -> None:
    from concurrent.futures import ThreadPoolExecutor

    def work(number: int) -> bool:
        data = os.urandom(700_000)
        with host.files() as mine:
            mine.write(place / f"{number}", io.BytesIO(data))
            hashed = host.run(["sha256sum", str(place / f"{number}")]).text.split()[0]
            back = io.BytesIO()
            mine.read(place / f"{number}", back)
        return hashed == sha256(data) == sha256(back.getvalue())

    with ThreadPoolExecutor(12) as threads:
        assert all(threads.map(work, range(36)))


def test_a_closed_host_works_again(host: Host, place: PurePosixPath) -> None:
    assert host.run(["true"]).code == 0
    host.close()
    host.close()
    assert host.run(["true"]).code == 0


def test_a_host_says_what_it_is(host: Host) -> None:
    assert host.describe()
    assert host.base_dir.is_absolute()


def wait_gone(pid: int) -> None:
    until = time.monotonic() + 10
    while time.monotonic() < until:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return
        except FileNotFoundError:
            return
        time.sleep(0.01)
    os.kill(pid, 9)
    pytest.fail("the program is still running")


# ---- copies


def test_files_are_copied_there_with_their_marks(files: Files, place: PurePosixPath) -> None:
    wanted = {name: os.urandom(size) for name, size in (("empty", 0), ("small é", 10), ("large", 3_000_000))}
    for name, data in wanted.items():
        files.write(place / name, io.BytesIO(data))

    copied = list(files.copy_many(place, [copying(place, name, len(data)) for name, data in wanted.items()]))

    assert files.copies
    assert {each.origin.name for each in copied} == set(wanted)
    for name, data in wanted.items():
        target = Path(place / f"{name}.copy")
        assert target.read_bytes() == data
        assert (stat.S_IMODE(target.stat().st_mode), target.stat().st_mtime) == (0o640, 1000)


def test_what_can_not_be_copied_is_left_out_and_the_others_are_there(files: Files, place: PurePosixPath) -> None:
    files.write(place / "good", io.BytesIO(b"12345"))
    files.write(place / "shorter", io.BytesIO(b"123"))
    files.make_directory(place / "directory")
    names = ("gone", "shorter", "directory", "nowhere/gone", "good")

    for _ in range(3):  # the session goes on
        copied = list(files.copy_many(place, [copying(place, name, 5) for name in names]))

        assert [each.origin.name for each in copied] == ["good"]
        assert Path(place / "good.copy").read_bytes() == b"12345"
        assert files.stat(place / "good.copy") is not None


def copying(place: PurePosixPath, name: str, size: int) -> Copying:
    return Copying(place / name, place / f"{name}.copy", size, 0o600, 0o640, 1000)
