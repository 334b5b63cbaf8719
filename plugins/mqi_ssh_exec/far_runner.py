"""The quick way to start a run: submits it and lives on as its runner, without a shell's many processes.

Runs on the host under Python 3.6 or later, as a resident program, and keeps `mqi-job`'s records, gate and rules, so
that `mqi-job` reports, ends and adopts what was started here. It starts only what is plain: anything unusual is left
to `mqi-job`, with nothing done. See there for what each record means.

That nothing of a run is left is proven by its parentage: the runner is the one to whom orphans of its descendants are
given (`PR_SET_CHILD_SUBREAPER`), so as long as one lives, it has a child. Once the runner is dead, the mark and the session
that it has written down tell, as they do for `mqi-job`.
"""

import contextlib
import ctypes
import glob
import json
import os
import re
import select
import signal
import stat
import sys
import time
import traceback

DEFERRED = b"deferred"  # nothing was done
BEGUN = b"begun"  # it was started, and has not ended in time
SUBREAPER = 36  # of prctl
SET_NAME = 15
ROUNDS = 50
NAP = 0.1  # seconds
LOG_PATIENCE = 10.0
PLAIN_GLOB = re.compile(r"[A-Za-z0-9_./*?+@=,-]+\Z")  # what every shell and Python take for the same


class Unusual(Exception):
    """Not for this way."""


def answer(request: bytes) -> bytes:
    """Start a run and wait a moment for its end. The answer is `mqi-job`'s report, or one of the words above."""
    order = json.loads(request.decode())
    try:
        run = Run(order)
        run.look()
        run.prepare()
    except (Unusual, OSError):
        return DEFERRED
    return run.start(order["wait"]) or BEGUN


def to_bytes(text: str) -> bytes:
    """Return the bytes that a text stood for."""
    return text.encode("utf-8", "surrogateescape")


def read(path: bytes) -> bytes:
    """Return a small file of /proc, or a record."""
    number = os.open(path, os.O_RDONLY)
    try:
        pieces = []  # type: list
        while True:
            piece = os.read(number, 1 << 16)
            if not piece:
                return b"".join(pieces)
            pieces.append(piece)
    finally:
        os.close(number)


def stat_of(pid: bytes) -> list:
    """Return a process's fields from its state on: state, parent, group, session, and the 20th is its start."""
    return read(b"/proc/" + pid + b"/stat").rpartition(b") ")[2].split()


def processes() -> list:
    """Return the number of each process."""
    return [each for each in os.listdir(b"/proc") if each.isdigit()]


def bearers(mark: bytes) -> list:
    """Return who has a variable in its environment that begins so, and lives. Raises `Unusual` where none can be seen."""
    if not read(b"/proc/self/environ"):
        raise Unusual
    found = []
    for pid in processes():
        try:
            if carries(pid, mark) and lives(pid):
                found.append(pid)
        except OSError:
            continue
    return found


def carries(pid: bytes, mark: bytes) -> bool:
    """Whether a variable of a process begins so: who only looks for the mark has it in the middle of one."""
    return b"\0" + mark in b"\0" + read(b"/proc/" + pid + b"/environ")


def lives(pid: bytes) -> bool:
    """Whether a process runs, and is not only waiting to be collected."""
    return stat_of(pid)[0] not in (b"Z", b"X")


def boot_id() -> bytes:
    """Return what tells this boot of the machine from others."""
    return read(b"/proc/sys/kernel/random/boot_id").strip()


def adopt_orphans() -> None:
    """Have orphans of our descendants given to us. Raises `Unusual` where the kernel or Python can't."""
    with contextlib.suppress(OSError, AttributeError):
        if ctypes.CDLL(None).prctl(SUBREAPER, 1, 0, 0, 0) == 0:
            return
    raise Unusual


def stop_adopting() -> None:
    """Take that back."""
    ctypes.CDLL(None).prctl(SUBREAPER, 0, 0, 0, 0)


class Run:
    """One attempt's run."""

    def __init__(self, order: dict) -> None:
        self.part = to_bytes(order["part"])
        self.attempt = order["attempt"]
        self.script = to_bytes(order["script"])
        self.input = to_bytes(order["input"])
        self.limit = order["limit"]
        self.grace = order["grace"]
        self.log_limit = order["log_limit"]
        self.outputs = order["outputs"]
        self.work = self.part + b"/%d" % self.attempt
        self.job = self.records(self.attempt)
        self.mark = b"MQI_JOB=" + self.job + b";"
        self.environment = dict(
            each.split(b"=", 1) for each in read(b"/proc/self/environ").split(b"\0") if b"=" in each
        )

    def records(self, attempt: int) -> bytes:
        """Return the directory of an attempt's records."""
        return self.part + b"/.%d.job" % attempt

    def look(self) -> None:
        """Raise `Unusual` unless nothing of this attempt is there, and all of earlier ones has ended and left nobody."""
        if not self.part.startswith(b"/") or os.path.exists(self.job):
            raise Unusual
        if not all(os.path.exists(self.records(each) + b"/exit") for each in range(1, self.attempt)):
            raise Unusual
        if bearers(b"MQI_JOB=" + self.part + b"/."):
            raise Unusual

    def prepare(self) -> None:
        """Write down what is to run."""
        adopt_orphans()  # whether it can be done is known before anything is
        stop_adopting()
        os.umask(0o027)
        os.makedirs(self.part, exist_ok=True)
        os.umask(0o077)
        os.makedirs(self.job + b"/log", exist_ok=True)
        self.write(b"command", self.script)

    def write(self, name: bytes, data: bytes, *, durable: bool = False) -> None:
        """Write a record: complete or not at all."""
        temporary = self.job + b"/" + name + b".%d.tmp" % os.getpid()
        number = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(number, rest) :]
            if durable:
                os.fsync(number)
        finally:
            os.close(number)
        os.rename(temporary, self.job + b"/" + name)

    def start(self, wait: float) -> bytes:
        """Start the runner; once it has ended within `wait` seconds, report. Else return nothing."""
        ended, held = os.pipe()
        pid = os.fork()
        if not pid:
            self.become_runner(held)
        os.close(held)
        try:
            if not select.select([ended], [], [], wait)[0]:
                return b""
        finally:
            os.close(ended)
        os.waitpid(pid, 0)
        return self.report() if os.path.exists(self.job + b"/exit") else b""

    def become_runner(self, held: int) -> None:
        """Leave the connection for good, run it to its end, and exit."""
        try:
            os.setsid()
            os.chdir(self.job)  # tells anybody who looks at the processes which run this one is of
            ctypes.CDLL(None).prctl(SET_NAME, b"mqi-job", 0, 0, 0)
            log = os.open(self.job + b"/runner.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            os.dup2(log, 2)
            for each in os.listdir(b"/proc/self/fd"):
                if int(each) > 2 and int(each) != held:
                    with contextlib.suppress(OSError):  # the listing's own
                        os.close(int(each))
            Runner(self).run()
        except BaseException:  # noqa: BLE001  there is nobody to hear of it
            os.write(2, traceback.format_exc().encode())
            os._exit(1)
        os._exit(0)

    def report(self) -> bytes:
        """Return what `mqi-job` would report of a run that has ended, with what its outputs match."""
        lines = [b"state=finished", b"attempt=%d" % self.attempt, b"now=%d" % time.time()]
        started = (
            dict(each.split(b"=", 1) for each in read(self.job + b"/started").splitlines() if b"=" in each)
            if os.path.exists(self.job + b"/started")
            else {}
        )
        if started:
            lines += [b"pid=" + started[b"pid"], b"node=" + started[b"node"], b"started=" + started[b"at"]]
        lines += read(self.job + b"/exit").splitlines()
        end, cut = 0, 0
        for first in sorted(int(each) for each in os.listdir(self.job + b"/log") if each.isdigit()):
            cut = cut or int(first != end)
            end = first + os.stat(self.job + b"/log/%d" % first).st_size
        lines += [b"log=%d" % end, b"log_cut=%d" % cut]
        if self.outputs and os.path.isdir(self.work) and all(PLAIN_GLOB.match(each) for each in self.outputs):
            lines += [b"stable=1"] + [self.count(to_bytes(each)) for each in self.outputs]
        return b"\n".join(lines) + b"\n"

    def count(self, pattern: bytes) -> bytes:
        """Count the files that a pattern matches, those of its directories with them, the empty ones, and the bytes."""
        found = []
        for path in glob.glob(glob.escape(self.work) + b"/" + pattern):
            if not os.path.isdir(path):
                found.append(path)
            for folder, _, names in os.walk(path):
                found += [
                    os.path.join(folder, each) for each in names if not os.path.islink(os.path.join(folder, each))
                ]
        sizes = [each.st_size for each in map(look_at, found) if each is not None and stat.S_ISREG(each.st_mode)]
        return b"output=%d %d %d" % (len(sizes), sizes.count(0), sum(sizes))


def look_at(path: bytes):  # type: ignore[no-untyped-def]
    """Return what a path leads to; None for nothing."""
    try:
        return os.stat(path)
    except OSError:
        return None


class Log:
    """The command's output on the disk: the first half of the limit, and the last quarter at least."""

    def __init__(self, place: bytes, limit: int) -> None:
        self.place = place
        self.quarter = max(limit // 4, 1)
        self.first = self.size = self.lost = 0
        self.room = max(limit // 2, 1)
        self.previous = -1
        self.number = self.open()

    def open(self) -> int:
        """Open the piece that is written now; -1 where it can't be."""
        try:
            return os.open(self.place + b"/%d" % self.first, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        except OSError:
            self.lose()
            return -1

    def lose(self) -> None:
        """Keep no more of the output, and leave `mqi-job`'s mark of that, which takes no space."""
        self.lost = 1
        with contextlib.suppress(OSError):
            os.chmod(self.place, stat.S_IMODE(os.stat(self.place).st_mode) | stat.S_ISUID)

    def add(self, data: bytes) -> None:
        """Keep a piece of output. Where there is no space, what comes is passed over: the log may not stop the run."""
        rest = memoryview(data)
        while rest and not self.lost:
            if self.size >= self.room:
                self.turn()
                continue
            try:
                written = os.write(self.number, rest[: self.room - self.size])
            except OSError:
                self.lose()
                return
            self.size += written
            rest = rest[written:]

    def turn(self) -> None:
        """Begin the next piece; the one before the last goes."""
        os.close(self.number)
        if self.previous > 0:
            with contextlib.suppress(OSError):
                os.unlink(self.place + b"/%d" % self.previous)
        if self.first > 0:
            self.previous = self.first
        self.first, self.size, self.room = self.first + self.size, 0, self.quarter
        self.number = self.open()


class Runner:
    """Lives as long as its command and all that the command started."""

    def __init__(self, run: Run) -> None:
        self.job_of = run
        self.asked = ""
        self.reason, self.code, self.status, self.left = "exit", "", "", 0
        self.used = []  # type: list  # lines on what the command used, once it has ended
        self.child = 0
        self.childless = False
        self.log_lost = 0
        self.output = -1
        self.ends_at = 0.0

    def run(self) -> None:
        """Pass the gate, perform, and write down the end."""
        run = self.job_of
        adopt_orphans()
        self.listen()
        mine = stat_of(b"self")
        claim = b"started.%d" % os.getpid()
        run.write(claim, self.introduction(mine), durable=True)
        try:
            os.mkdir(run.job + b"/gate", 0o700)
        except FileExistsError:
            os.unlink(run.job + b"/" + claim)
            return  # another runner has it, or a later attempt closed it
        os.rename(run.job + b"/" + claim, run.job + b"/started")
        self.reason = self.obstacle()
        if self.reason == "exit":
            self.perform()
        self.write_exit()

    def listen(self) -> None:
        """Have signals end a wait, and note those that ask for the end."""
        self.woken, wake = os.pipe()
        os.set_blocking(self.woken, False)
        os.set_blocking(wake, False)
        signal.set_wakeup_fd(wake)

        def terminated(number: int, frame: object) -> None:
            self.asked = self.asked or "terminated"

        signal.signal(signal.SIGTERM, terminated)
        for each in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGUSR1, signal.SIGCHLD):
            signal.signal(each, lambda number, frame: None)  # not ignored: the command would inherit that

    def introduction(self, mine: list) -> bytes:
        """Return the record of who this runner is."""
        facts = [
            (b"pid", b"%d" % os.getpid()),
            (b"group", mine[2]),
            (b"start", mine[19]),
            (b"boot", boot_id()),
            (b"space", os.readlink(b"/proc/self/ns/pid")),
            (b"node", read(b"/proc/sys/kernel/hostname").strip()),
            (b"at", b"%d" % time.time()),
            (b"machine", self.job_of.environment.get(b"MQI_NODE", b"")),
        ]
        return b"".join(name + b"=" + value + b"\n" for name, value in facts)

    def obstacle(self) -> str:
        """Make the work directory; return what is in the way, or `exit`."""
        run = self.job_of
        if run.input != b"-" and not os.path.isdir(run.input):
            return "no_input"
        os.umask(0o027)
        try:
            os.mkdir(run.work)
        except OSError:
            if not os.path.isdir(run.work):
                return "no_work"
            if os.listdir(run.work):
                return "not_empty"
        finally:
            os.umask(0o077)
        return "exit"

    def perform(self) -> None:
        """Run the command until nothing of it is left."""
        run = self.job_of
        log = Log(run.job + b"/log", run.log_limit)
        self.keep = log.add
        self.output, write = os.pipe()
        mine = os.getpid()
        self.child = os.fork()
        if not self.child:
            self.become_command(write, mine)
        os.close(write)
        self.ends_at = time.monotonic() + run.limit if run.limit else 0.0
        while not self.ended():
            if self.asked:
                self.end_members()
            self.turn(self.ends_at - time.monotonic() if self.ends_at else None)
        # What the command left behind belongs to it: a run has ended when nothing of it is left.
        self.left = len(self.members())
        if self.left or not self.childless:
            self.end_members()
        until = time.monotonic() + LOG_PATIENCE
        while self.output >= 0 and time.monotonic() < until:
            self.turn(until - time.monotonic())
        if self.output >= 0:
            self.log_lost = 1  # something that is not ours to end holds the pipe
        self.log_lost = self.log_lost or log.lost
        if self.asked:
            self.reason = self.asked
            with contextlib.suppress(OSError, IndexError, ValueError):
                self.reason = read(run.job + b"/kill").split()[1].decode("ascii")

    def become_command(self, write: int, runner: int) -> None:
        """Turn into the command."""
        run = self.job_of
        try:
            os.setsid()
            signal.set_wakeup_fd(-1)
            self.write_session(runner)
            if os.getppid() != runner:
                return  # who found it dead and no session written down may have taken the run for lost
            for each in (signal.SIGPIPE, signal.SIGXFSZ):
                signal.signal(each, signal.SIG_DFL)  # Python ignores them
            os.chdir(run.work)
            os.umask(0o027)
            os.dup2(write, 1)
            os.dup2(write, 2)
            environment = {k: v for k, v in run.environment.items() if k not in (b"MQI_RUNNER", b"MQI_SPACE")}
            environment[b"MQI_JOB"] = run.job + b";"
            if b"PWD" in environment:
                environment[b"PWD"] = run.work
            os.execve(b"/bin/sh", [b"sh", run.job + b"/command"], environment)  # noqa: S606
        finally:
            os._exit(127)

    def write_session(self, runner: int) -> None:
        """Write down the session that the command runs in; where there is no space, once there is."""
        space = os.readlink(b"/proc/self/ns/pid")
        record = b"%d %s %s %s\n" % (os.getpid(), stat_of(b"self")[19], boot_id(), space)
        while os.getppid() == runner and os.path.isdir(self.job_of.job):
            try:
                self.job_of.write(b"session", record)
                break
            except OSError:
                time.sleep(1)

    def ended(self) -> bool:
        """Whether the command has ended; collects whatever has."""
        while not self.childless:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                self.childless = True
                break
            if not pid:
                break
            if pid == self.child:
                self.child = 0
                self.used = [
                    "cpu=%s %s" % (spell(usage.ru_utime), spell(usage.ru_stime)),
                    "memory=%d" % usage.ru_maxrss,
                ]
                code = os.WEXITSTATUS(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status)
                self.status = str(code)
                if os.WIFEXITED(status) or not self.asked:
                    self.code = str(code)
        return not self.child

    def turn(self, seconds: object) -> None:
        """Wait for output, a signal or the time limit, and keep the output."""
        sources = [self.woken] + ([self.output] if self.output >= 0 else [])
        wait = None if seconds is None else max(float(seconds), 0.0)  # type: ignore[arg-type]
        ready = select.select(sources, [], [], wait)[0]
        if self.woken in ready:
            os.read(self.woken, 4096)
        if self.output in ready:
            data = os.read(self.output, 1 << 16)
            if data:
                self.keep(data)
            else:
                os.close(self.output)
                self.output = -1
        if self.ends_at and time.monotonic() >= self.ends_at:
            self.asked = self.asked or "time"

    def members(self) -> list:
        """Return what the command started and still runs: our descendants, and who carries its mark."""
        mine, family, found = b"%d" % os.getpid(), {}, set()
        for pid in processes():
            try:
                fields = stat_of(pid)
                if fields[0] in (b"Z", b"X") or pid == mine:
                    continue
                family[pid] = fields[1]
                if carries(pid, self.job_of.mark):
                    found.add(pid)
            except OSError:
                continue
        for pid in family:
            line, parent = [pid], family[pid]
            while parent in family and parent not in found and parent not in line:
                line.append(parent)
                parent = family[parent]
            if parent == mine or parent in found:
                found.update(line)
        return sorted(int(each) for each in found)

    def end_members(self) -> None:
        """Ask all of it to end, force it after the grace, and return when nothing is left."""
        self.ends_at = 0.0
        self.tell(signal.SIGTERM)
        self.tell(signal.SIGCONT)  # a stopped process hears it only then
        until = time.monotonic() + self.job_of.grace
        rounds = 0
        while self.remain():
            self.turn(NAP if rounds < ROUNDS else 1.0)  # what hangs in the kernel may write again: it is waited for
            if time.monotonic() >= until:
                self.tell(signal.SIGKILL)
                rounds += 1

    def remain(self) -> bool:
        """Whether anything is left; collects what has ended."""
        self.ended()
        return not self.childless or bool(self.members())

    def tell(self, number: int) -> None:
        """Send a signal to all of it."""
        for pid in self.members():
            try:
                os.kill(pid, number)
            except OSError:
                continue

    def write_exit(self) -> None:
        """Write down the end; where there is no space, until there is: the end must not be lost."""
        lines = [
            "reason=" + self.reason,
            "code=" + self.code,
            "status=" + self.status,
            "ended=%d" % time.time(),
            "left=%d" % self.left,
            "log_lost=%d" % self.log_lost,
        ]
        lines += self.used
        while True:
            try:
                return self.job_of.write(b"exit", ("\n".join(lines) + "\n").encode(), durable=True)
            except OSError:
                if not os.path.isdir(self.job_of.job):
                    sys.exit(1)
                time.sleep(5)


def spell(seconds: float) -> str:
    """Write seconds as a shell's `times` does."""
    return "%dm%.6fs" % (seconds // 60, seconds % 60)
