"""The logs of all the daemon's processes: one file each, all written by the supervisor."""

from __future__ import annotations

from pathlib import Path
from typing import TextIO

from mqi_cli.clock import Clock
from mqi_cli.config.model import LogSection
from mqi_cli.logfile import LogFile, LogFileHandler
from mqi_cli.logs import LineFormatter, Redactor, install


class Logbook:
    """Keeps a log file for each name. With `echo` every line goes there too."""

    def __init__(self, directory: Path, *, clock: Clock, echo: TextIO | None = None) -> None:
        self._directory = directory
        self._clock = clock
        self._echo = echo
        self._section = LogSection()
        self._redactor = Redactor()
        self._files: dict[str, LogFile] = {}

    def adjust(self, section: LogSection, secrets: tuple[str, ...], *, own: str) -> None:
        """Go over to other settings, and send this process's own log to the file `own`."""
        self._section = section
        self._redactor = Redactor(secrets)
        for each in self._files.values():
            each.resize(max_size=section.max_size, keep=section.keep)
        install(LogFileHandler(self._file(own), self._formatter(own)), section)

    def write(self, name: str, line: str) -> None:
        """Add a line that a child wrote; what it printed past the logging gets the time and the child's name."""
        formatter = self._formatter(name)
        whole = line if formatter.owns(line) else formatter.line(self._clock.now(), "output", line)
        self._file(name).write(whole)

    def close(self) -> None:
        """Close every file."""
        for each in self._files.values():
            each.close()

    def _file(self, name: str) -> LogFile:
        if name not in self._files:
            path = self._directory / f"{name}.log"
            size, keep = self._section.max_size, self._section.keep
            self._files[name] = LogFile(path, max_size=size, keep=keep, echo=self._echo)
        return self._files[name]

    def _formatter(self, name: str) -> LineFormatter:
        return LineFormatter(name, json_lines=self._section.format == "json", redactor=self._redactor)
