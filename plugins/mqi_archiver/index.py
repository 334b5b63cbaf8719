"""Which archives were made on this machine: one small file a case, each written complete or not at all."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

from mqi_cli import KEY_PATTERN, UsageError


@dataclass(frozen=True)
class Archived:
    """One archive. Times are wall seconds; `pruned_at` is None while it should be there."""

    key: str
    name: str
    source: str
    revision: int
    fingerprint: str
    path: str
    root: str
    sha256: str
    size: int
    files: int
    archived_at: float
    pruned_at: float | None = None


class Index:
    """The archives of this machine, by case key."""

    def __init__(self, data_dir: Path) -> None:
        self._directory = data_dir / "archives"

    def put(self, archived: Archived) -> None:
        """Note an archive; durable when it returns. Noted again it keeps its first time."""
        with self._locked():
            known = self.of(archived.key)
            same = next((each for each in known if each.path == archived.path and each.sha256 == archived.sha256), None)
            if same and same.pruned_at is None:
                return
            self._write(archived.key, [*(each for each in known if each.path != archived.path), archived])

    def pruned(self, archived: Archived, *, at: float) -> None:
        """Note that an archive was removed."""
        with self._locked():
            self._write(
                archived.key,
                [replace(each, pruned_at=at) if each == archived else each for each in self.of(archived.key)],
            )

    def of(self, key: str) -> list[Archived]:
        """Return a case's archives, oldest first."""
        try:
            found = json.loads((self._directory / f"{key}.json").read_bytes())
            return [_archived(each) for each in found]
        except FileNotFoundError:
            return []
        except (ValueError, TypeError) as error:
            raise UsageError(
                f"the archiver's record of case {key} is damaged",
                hint="its archives can still be restored by path: mqi archive restore FILE --to DIR",
            ) from error

    def each(self) -> Iterator[Archived]:
        """Go through all archives, by key. Damaged records are passed over: `damaged` counts them."""
        for key in self._keys():
            try:
                yield from self.of(key)
            except UsageError:
                continue

    def damaged(self) -> int:
        """Count the records that can't be read."""
        count = 0
        for key in self._keys():
            try:
                self.of(key)
            except UsageError:
                count += 1
        return count

    def find(self, text: str) -> Archived:
        """Return the newest archive of the case that a key, a name or a unique beginning of either means."""
        if KEY_PATTERN.match(text) and (known := [each for each in self.of(text) if each.pruned_at is None]):
            return max(known, key=lambda each: each.archived_at)  # without reading the record of every other case
        everything = [each for each in self.each() if each.pruned_at is None]
        for meant in (
            [each for each in everything if text in (each.key, each.name)],
            [each for each in everything if each.key.startswith(text) or each.name.startswith(text)],
        ):
            cases = {(each.source, each.name) for each in meant}
            if len(cases) > 1:
                keys = sorted({each.key for each in meant})
                raise UsageError(
                    f"{text!r} means {len(cases)} cases: {', '.join(keys[:10])}", hint="give more letters, or the key"
                )
            if meant:
                return max(meant, key=lambda each: (each.revision, each.archived_at))
        raise UsageError(f"no archive of a case {text!r} is known on this machine", hint="mqi archive list")

    def _keys(self) -> list[str]:
        if not self._directory.is_dir():
            return []
        return sorted(path.stem for path in self._directory.glob("c*.json") if KEY_PATTERN.match(path.stem))

    def _write(self, key: str, records: list[Archived]) -> None:
        partial = self._directory / f".{key}.{os.getpid()}.partial"
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            json.dump([asdict(each) for each in records], stream, ensure_ascii=False, indent=1)
            stream.flush()
            os.fsync(stream.fileno())
        partial.rename(self._directory / f"{key}.json")
        handle = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Keep other processes from the records; the lock ends with the process that holds it."""
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(self._directory / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


_FIELDS = {each.name for each in fields(Archived)}


def _archived(found: dict[str, object]) -> Archived:
    return Archived(**{key: value for key, value in found.items() if key in _FIELDS})  # type: ignore[arg-type]
