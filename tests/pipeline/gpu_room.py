"""A machine with simulated GPUs: a `nvidia-smi` for its PATH, and runs that say which GPUs they use, from when to when."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

# The answers lie in files, so that a test changes them under the curator. A run's own processes are told as well.
_SMI = """\
#!/bin/sh
case "$1" in
--query-gpu=*) cat '{room}/gpus' ;;
--query-compute-apps=*)
  for each in '{room}'/apps/*; do
    [ -e "$each" ] && name=${{each##*/}} && echo "${{name%@*}}, ${{name##*@}}"
  done ;;
esac
exit 0
"""

# Notes its start durably, works, notes its end.
_RUN = """\
#!/bin/sh
# run.sh CASE PART SECONDS
for gpu in $(echo "$CUDA_VISIBLE_DEVICES" | tr , ' '); do
  : >'{room}/apps/'"$gpu@$$"
  echo "start $gpu $1/$2 $$ $(date +%s.%N)" | dd of='{room}/ledger' oflag=append conv=notrunc,fsync 2>/dev/null
done
sleep "$3"
for gpu in $(echo "$CUDA_VISIBLE_DEVICES" | tr , ' '); do
  echo "end $gpu $1/$2 $$ $(date +%s.%N)" | dd of='{room}/ledger' oflag=append conv=notrunc,fsync 2>/dev/null
  rm -f '{room}/apps/'"$gpu@$$"
done
echo dose >dose.raw
"""


@dataclass(frozen=True)
class Use:
    """One GPU in one run's hands, from and until when."""

    gpu: str
    by: str  # case and part
    pid: int
    begun: float
    ended: float


class GpuRoom:
    """GPUs that a test can renumber, take away and give to strangers."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        (directory / "apps").mkdir(parents=True)
        (directory / "ledger").touch()
        self.programs = directory / "bin"  # for the host's PATH
        self.programs.mkdir()
        self._script("bin/nvidia-smi", _SMI)
        self.run = self._script("run.sh", _RUN)
        self.uuids: list[str] = []

    def fill(self, count: int) -> None:
        """Put so many GPUs in."""
        self.uuids = [f"GPU-{number:08x}" for number in range(count)]
        self.show(self.uuids)

    def show(self, uuids: list[str]) -> None:
        """Let the driver count these GPUs, in this order."""
        lines = [f"{number}, {uuid}, Fake, 24576, 10, 0, 40, [N/A]\n" for number, uuid in enumerate(uuids)]
        new = self.directory / "gpus.new"
        new.write_text("".join(lines))
        new.rename(self.directory / "gpus")

    def stranger(self, uuid: str, *, there: bool) -> None:
        """Let somebody else compute on a GPU, or go."""
        place = self.directory / "apps" / f"{uuid}@4000000"
        place.touch() if there else place.unlink(missing_ok=True)

    def _script(self, name: str, text: str) -> Path:
        path = self.directory / name
        path.write_text(text.format(room=self.directory))
        path.chmod(0o700)
        return path

    def uses(self) -> list[Use]:
        """Read the ledger. A run that has not ended has no end: it uses its GPU for ever."""
        begun: dict[tuple[str, str, int], float] = {}
        uses = []
        for line in (self.directory / "ledger").read_text().splitlines():
            what, gpu, by, pid, at = line.split()
            run = (gpu, by, int(pid))
            if what == "start":
                begun[run] = float(at)
            else:
                uses.append(Use(*run, begun.pop(run), float(at)))
        return [*uses, *(Use(*run, at, float("inf")) for run, at in begun.items())]

    def used_twice(self) -> list[tuple[Use, Use]]:
        """Return each two runs that had one GPU at the same time, or that lived at the same time for one part."""
        uses = sorted(self.uses(), key=lambda use: use.begun)
        return [
            (one, other)
            for number, one in enumerate(uses)
            for other in uses[number + 1 :]
            if other.begun < one.ended and (one.gpu == other.gpu or (one.by == other.by and one.pid != other.pid))
        ]

    def most_at_once(self) -> int:
        """Return how many runs went side by side at the most."""
        uses = self.uses()
        return max((len({use.pid for use in uses if use.begun <= at.begun < use.ended}) for at in uses), default=0)
