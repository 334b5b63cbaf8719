"""How a process writes its log: one event a line on stderr, as text or JSON, with nothing in it that must not leave.

Under the supervisor stderr is a pipe, and the supervisor alone writes the files: several processes that rotate one
file lose lines. No case name and no secret gets through from here: a bug's message may hold either, so a traceback
shows where and what kind, and the message only where it is known to be free of them.
"""

from __future__ import annotations

import contextlib
import json
import logging
import re
import sys
import threading
import time
import traceback
from collections.abc import Iterable, Iterator, Mapping
from types import TracebackType
from typing import Any, TextIO

from pydantic import BaseModel, SecretStr

from mqi_cli.config.loaded import Config
from mqi_cli.config.model import LogSection
from mqi_cli.errors import EXIT_BUG, MqiError, describe_os_error
from mqi_cli.printable import printable

HIDDEN = "[secret]"
_SHORTEST_SECRET = 4  # a shorter one would blank out half of every line, and protects nothing
_URL_PASSWORD = re.compile(r"(?P<head>\b[a-z][a-z0-9+.-]*://[^\s:/@]*:)[^\s/@]+(?=@)", re.IGNORECASE)
_NAMED_SECRET = re.compile(
    r"(?P<head>\b(?:password|passwd|passphrase|secret|token)\s*[=:]\s*)[^\s,;)\]}]+", re.IGNORECASE
)

# Their messages are made of the program's own names, never of values.
_HARMLESS = (TypeError, AttributeError, NameError, ImportError, RecursionError, MemoryError)

# They name remote files (paramiko, at debug) and endpoints (pika, at info). pika also tells each failed try to connect in
# five lines, every ten seconds for as long as a broker is away; what matters of it comes back as our own errors.
_TALKATIVE = {"paramiko": logging.WARNING, "pika": logging.CRITICAL}


class Redactor:
    """Blanks out known secrets, and what looks like one."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        longest_first = sorted({each for each in secrets if len(each) >= _SHORTEST_SECRET}, key=len, reverse=True)
        self._known = re.compile("|".join(map(re.escape, longest_first))) if longest_first else None

    def clean(self, text: str) -> str:
        """Return the text without its secrets."""
        if self._known is not None:
            text = self._known.sub(HIDDEN, text)
        return _NAMED_SECRET.sub(rf"\g<head>{HIDDEN}", _URL_PASSWORD.sub(rf"\g<head>{HIDDEN}", text))


def config_secrets(config: Config) -> Iterator[str]:
    """Find every secret that the config holds, wherever it lies in it."""
    if config.key_salt:
        yield config.key_salt
    yield from _secrets_in([config.broker, config.hosts, config.sections])


def _secrets_in(value: Any) -> Iterator[str]:
    if isinstance(value, SecretStr):
        yield value.get_secret_value()
    elif isinstance(value, BaseModel):
        yield from _secrets_in([getattr(value, name) for name in type(value).model_fields])
    elif isinstance(value, Mapping):
        yield from _secrets_in(list(value.values()))
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _secrets_in(each)


def describe_bug(error: BaseException) -> list[str]:
    """Return a traceback's lines without values: where it happened, what kind it is, and messages known to be harmless."""
    lines: list[str] = []
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        frames = traceback.extract_tb(current.__traceback__)
        later = ["while that was handled:", *lines] if lines else []
        lines = [*(f"  {each.filename}:{each.lineno} in {each.name}" for each in frames), _harmless(current), *later]
        current = current.__cause__ or (None if current.__suppress_context__ else current.__context__)
    return lines


def _harmless(error: BaseException) -> str:
    kind = type(error).__name__
    if isinstance(error, MqiError):
        return f"{kind}: {printable(error.message)}"
    if isinstance(error, OSError):
        return f"{kind}: {describe_os_error(error)}"
    return f"{kind}: {printable(str(error))}" if isinstance(error, _HARMLESS) else kind


class LineFormatter(logging.Formatter):
    """Makes each record one line (with a traceback in text: one line for each of its lines)."""

    def __init__(self, process: str, *, json_lines: bool, redactor: Redactor) -> None:
        super().__init__()
        self.process = process
        self._json = json_lines
        self._redactor = redactor

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as text or JSON; `case` and `step` come from the record's extra fields."""
        error = record.exc_info[1] if record.exc_info else None
        return self.line(
            record.created,
            record.levelname.lower(),
            record.getMessage(),
            case=str(getattr(record, "case", "") or ""),
            step=str(getattr(record, "step", "") or ""),
            trace=describe_bug(error) if error is not None else [],
        )

    def line(
        self, at: float, level: str, text: str, *, case: str = "", step: str = "", trace: Iterable[str] = ()
    ) -> str:
        """Return one event as the log holds it. `at` is in seconds since the epoch."""
        text = printable(self._redactor.clean(text))
        trace = [printable(self._redactor.clean(each)) for each in trace]
        if self._json:
            fields = {"at": timestamp(at), "level": level, "process": self.process, "case": case, "step": step}
            body = {key: value for key, value in fields.items() if value} | {"text": text}
            return json.dumps(body | ({"trace": trace} if trace else {}), ensure_ascii=False)
        head = f"{timestamp(at)} {level.upper():<7} {self.process}"
        about = " ".join(each for each in (case, step) if each)
        return "\n".join(f"{head}: {f'[{about}] ' if about else ''}{each}" for each in (text, *trace))

    def owns(self, line: str) -> bool:
        """Whether a line that a child wrote was made by this format, rather than printed past the logging."""
        if self._json:
            return line.startswith('{"at": "') and line.endswith("}")
        return re.match(r"\d{4}-\d\d-\d\dT[\d:.]+Z [A-Z]+ +\S+: ", line) is not None


def timestamp(at: float) -> str:
    """Return a wall time in UTC as ISO 8601, with milliseconds."""
    whole, fraction = divmod(at, 1)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(whole))}.{int(fraction * 1000):03d}Z"


def setup_logging(
    section: LogSection, process: str, *, secrets: Iterable[str] = (), stream: TextIO | None = None
) -> None:
    """Send this process's log to stderr (or `stream`), and a crash to the log. Call it once, before anything is logged.

    `process` names it in every line: what the supervisor calls it (`Beat.process`), else what it does. `secrets` are
    what must never show, from `config_secrets`.
    """
    handler = logging.StreamHandler(stream if stream is not None else sys.stderr)
    handler.setFormatter(LineFormatter(process, json_lines=section.format == "json", redactor=Redactor(secrets)))
    install(handler, section)


def install(handler: logging.Handler, section: LogSection) -> None:
    """Make `handler` the only one of this process, at the level of the section, and have it tell of crashes too."""
    logging.raiseExceptions = False  # a full disk or a closed pipe must not turn each line into a traceback
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(section.level.upper())
    for name, level in _TALKATIVE.items():
        logging.getLogger(name).setLevel(level)
    logging.captureWarnings(True)
    sys.excepthook = _log_crash
    threading.excepthook = _log_thread_crash


@contextlib.contextmanager
def crashes_logged() -> Iterator[None]:
    """Log a bug that comes out of the block, and end the process with the exit code of a bug.

    For main functions of the daemon's processes: what the command line prints of a bug has its message in it, which may
    hold a case's name. Errors that mqi raises on purpose go through.
    """
    try:
        yield
    except MqiError:
        raise
    except Exception as error:
        logging.getLogger("mqi").critical("crashed", exc_info=True)
        raise SystemExit(EXIT_BUG) from error


def _log_crash(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        return
    logging.getLogger("mqi").critical("crashed", exc_info=(kind, error, trace))


def _log_thread_crash(args: threading.ExceptHookArgs) -> None:
    if args.exc_value is not None and not issubclass(args.exc_type, SystemExit):
        _log_crash(args.exc_type, args.exc_value, args.exc_traceback)
