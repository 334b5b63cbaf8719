"""The patrol `scan`: looks at every source, lets the gate judge each case, and reports what changed."""

from __future__ import annotations

import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from mqi_cli import (
    CaseSeen,
    CaseState,
    CaseVanished,
    KnownCase,
    PatrolContext,
    SourceView,
    Unfit,
    describe_os_error,
    parse_checksums,
)
from mqi_scanner.gate import Judgement, Look, Stand, conclude, judge
from mqi_scanner.listing import Listing, is_gone
from mqi_scanner.memory import Memory, directories_unchanged, look_at, spread
from mqi_scanner.proof import Changed, Proof

UNFIT_AGAIN = 60.0  # s; what is in the way may go from a directory whose time we don't watch
LONGEST = 30.0  # s that a round looks, and as many that it reads, however long the interval
MAX_CHECKSUMS = 64 << 20  # bytes of a checksum file


@dataclass(frozen=True)
class Place:
    """One case directory of a round, with what is known and remembered of it."""

    source: SourceView
    name: str
    directory: Path
    known: KnownCase | None
    memory: Memory


@dataclass
class Round:
    """What the last round came to, for people. `open` holds the judgements of all that is not complete."""

    looked_at: int = 0
    unchanged: int = 0
    complete: list[CaseSeen] = field(default_factory=list)
    open: dict[tuple[str, str], Judgement] = field(default_factory=dict)
    vanished: int = 0
    left: int = 0  # cases that the round had no time for, or has begun to read
    stopped: bool = False  # somebody asked the process to end


class Scan:
    """The patrol. One object serves a process: it remembers each case between rounds."""

    def __init__(self) -> None:
        self.round = Round()
        self._memory: dict[tuple[str, str], Memory] = {}
        self._listing = Listing()
        self._turn = 0

    def __call__(self, ctx: PatrolContext) -> None:
        """Do one round. Looking and reading may each take about an interval; what is left goes on in the next round."""
        self.round = Round()
        sources = [each for each in ctx.sources if not each.complete_when.manual]
        self._turn += 1
        first = self._turn % len(sources) if sources else 0
        places = [place for source in sources[first:] + sources[:first] for place in self._places(ctx, source)]
        readable = self._look(ctx, places)
        self._read(ctx, readable)
        self.round.stopped = ctx.stopping()

    def _places(self, ctx: PatrolContext, source: SourceView) -> list[Place]:
        found = self._listing.cases(ctx, source)
        if found is None:
            return []
        known = ctx.known(source.name, found)
        self._vanished(ctx, source, found)
        return [
            Place(source, name, path, known.get(name), self._memory.setdefault((source.name, name), Memory()))
            for name, path in found.items()
        ]

    def _vanished(self, ctx: PatrolContext, source: SourceView, found: Mapping[str, Path]) -> None:
        for key in [key for key in self._memory if key[0] == source.name and key[1] not in found]:
            del self._memory[key]
        for name in ctx.settling(source.name):
            if name not in found and is_gone(source.path / name):
                ctx.report(CaseVanished(source.name, name))
                self.round.vanished += 1

    # --- looking

    def _look(self, ctx: PatrolContext, places: list[Place]) -> list[tuple[Place, Look]]:
        now = ctx.clock.elapsed()
        pause = _pause(ctx)
        unsettled = [each for each in places if not each.memory.at_rest and _is_settling(each)]
        rest = [each for each in places if each.memory.at_rest or not _is_settling(each)]
        fresh: list[Place] = []
        due: list[Place] = []
        for place in rest:
            (due if place.memory.due <= now else fresh).append(place)
        readable: list[tuple[Place, Look]] = []
        # New and settling cases first, then those at rest by a glance at their directories, then those whose files are
        # to be looked at again. Each group begins with what has waited longest, and gets at least one look a round.
        for group, glance in ((unsettled, False), (fresh, True), (due, False)):
            group.sort(key=lambda each: each.memory.looked_at)
            for number, place in enumerate(group):
                if ctx.stopping() or (number and pause()):
                    self.round.left += len(group) - number
                    break
                look = self._look_at(ctx, place, glance=glance)
                if look is not None:
                    readable.append((place, look))
        return readable

    def _look_at(self, ctx: PatrolContext, place: Place, *, glance: bool) -> Look | None:
        memory = place.memory
        memory.looked_at = ctx.clock.elapsed()
        self.round.looked_at += 1
        try:
            if glance and self._still_known(place) and directories_unchanged(place.directory, memory.directories):
                self._keep(place)
                return None
            look, directories = look_at(place.directory)
            memory.learn(look, directories)
            judgement = self._judge(place, look)
        except FileNotFoundError:
            return None  # it went away since it was listed: the next round says so
        except OSError as error:
            self._not_seen(ctx, place, Judgement(Stand.SETTLING, f"can't be looked at: {describe_os_error(error)}"))
            return None
        again = UNFIT_AGAIN if look.unfit else ctx.config.recheck
        memory.due = memory.looked_at + spread(place.name, again)
        if self._is_known(place, look.snapshot):
            memory.at_rest, memory.judgement = True, None
            self._keep(place)
            if place.known is not None and place.known.snapshot != look.snapshot:  # it is again as it was accepted
                ctx.report(CaseSeen(place.source.name, place.name, place.directory, look.snapshot))
            return None
        memory.at_rest = judgement.resting
        if judgement.stand is not Stand.PROVABLE:
            self._say(ctx, place, look.snapshot, judgement)
            return None
        return look

    def _judge(self, place: Place, look: Look) -> Judgement:
        known, rule = place.known, place.source.complete_when
        listed: Mapping[str, str] | Unfit | None = None
        if rule.manifest:
            try:
                listed = _read_checksums(place.directory / rule.manifest)
            except Unfit as unfit:
                listed = unfit
        return judge(
            rule,
            look,
            last=known.snapshot if known else "",
            unchanged_for=known.unchanged_for if known else 0.0,
            listed=listed,
        )

    def _still_known(self, place: Place) -> bool:
        """Whether the state database still holds what our memory of the case rests on."""
        return place.known is not None and place.known.snapshot == place.memory.snapshot

    def _is_known(self, place: Place, snapshot: str) -> bool:
        """Whether the state database holds the case with exactly this content: there is nothing to report."""
        known, proven = place.known, place.memory.proven
        if known is None or known.state is CaseState.SETTLING:
            return False
        if _was_refused(known) and known.snapshot == snapshot:
            return True  # an operator cancelled it before it was complete: that holds until its content changes
        return known.accepted == snapshot or (proven is not None and proven.fingerprint == known.fingerprint)

    def _keep(self, place: Place) -> None:
        if place.memory.judgement is None:
            self.round.unchanged += 1
        else:
            self.round.open[place.source.name, place.name] = place.memory.judgement

    # --- reading

    def _read(self, ctx: PatrolContext, readable: list[tuple[Place, Look]]) -> None:
        """Read the cases in turns: each gets an equal share of the time that is left, the rest of it the next round."""
        end = ctx.clock.elapsed() + _budget(ctx)
        readable.sort(key=lambda each: (each[0].memory.proof is not None, each[0].name))
        for number, (place, look) in enumerate(readable):
            if ctx.stopping():
                self.round.left += len(readable) - number
                return
            now = ctx.clock.elapsed()
            share = now + max(end - now, 0.0) / (len(readable) - number)
            self._read_one(ctx, place, look, until=share)

    def _read_one(self, ctx: PatrolContext, place: Place, look: Look, *, until: float) -> None:
        memory = place.memory
        if memory.proven is not None:
            self._complete(ctx, place, memory.proven)
            return
        if memory.refused is not None:
            self._say(ctx, place, look.snapshot, memory.refused)
            return
        proof = memory.proof = memory.proof or Proof(place.directory, look)
        try:
            proof.advance(lambda: ctx.stopping() or ctx.clock.elapsed() >= until)
            if not proof.finished:
                self.round.left += 1
                self._say(ctx, place, look.snapshot, Judgement(Stand.SETTLING, proof.note))
                return
            after, _ = look_at(place.directory)
            if after.snapshot != look.snapshot:
                raise Changed
            manifest = proof.manifest()
            judgement = conclude(place.source.complete_when, manifest, self._listed(place))
        except (Changed, FileNotFoundError, Unfit):
            memory.proof = None
            self._say(ctx, place, "", Judgement(Stand.SETTLING, "it changed while it was read"))
            return
        except PermissionError:
            self._say(ctx, place, look.snapshot, Judgement(Stand.PROBLEM, "a file in it may not be read"))
            return
        except OSError as error:
            note = f"reading it failed ({describe_os_error(error)}); tried again at the next round"
            self._say(ctx, place, look.snapshot, Judgement(Stand.SETTLING, note))
            return
        memory.proof = None
        if judgement.stand is not Stand.COMPLETE:
            memory.refused, memory.at_rest = judgement, judgement.resting
            self._say(ctx, place, look.snapshot, judgement)
            return
        memory.proven = CaseSeen(
            place.source.name, place.name, place.directory, look.snapshot,
            fingerprint=manifest.fingerprint, files=len(manifest.files), size=manifest.size,
        )  # fmt: skip
        self._complete(ctx, place, memory.proven)

    def _listed(self, place: Place) -> Mapping[str, str] | None:
        rule = place.source.complete_when
        return _read_checksums(place.directory / rule.manifest) if rule.manifest else None

    # --- saying

    def _complete(self, ctx: PatrolContext, place: Place, seen: CaseSeen) -> None:
        place.memory.judgement = None
        place.memory.said = seen
        ctx.report(seen)
        self.round.complete.append(seen)

    def _not_seen(self, ctx: PatrolContext, place: Place, judgement: Judgement) -> None:
        if place.known is not None and place.known.accepted:  # a failing disk says nothing about an accepted content
            self.round.open[place.source.name, place.name] = judgement
        else:
            self._say(ctx, place, "", judgement)

    def _say(self, ctx: PatrolContext, place: Place, snapshot: str, judgement: Judgement) -> None:
        seen = CaseSeen(place.source.name, place.name, place.directory, snapshot)
        if judgement.stand is Stand.PROBLEM:
            seen = replace(seen, problem=judgement.note)
        else:
            seen = replace(seen, note=judgement.note)
        place.memory.judgement = judgement
        self.round.open[place.source.name, place.name] = judgement
        recorded = place.known is not None and place.known.snapshot == snapshot
        if not (recorded and seen == place.memory.said):
            ctx.report(seen)
            place.memory.said = seen


def _budget(ctx: PatrolContext) -> float:
    return min(max(float(ctx.config.interval), 1.0), LONGEST)


def _pause(ctx: PatrolContext) -> Callable[[], bool]:
    end = ctx.clock.elapsed() + _budget(ctx)
    return lambda: ctx.clock.elapsed() >= end


def _is_settling(place: Place) -> bool:
    known = place.known
    if known is None or known.state is CaseState.SETTLING:
        return True
    return known.accepted != known.snapshot and not (_was_refused(known) and known.snapshot)


def _was_refused(known: KnownCase) -> bool:
    return known.state is CaseState.CANCELLED and not known.accepted


def _read_checksums(path: Path) -> Mapping[str, str] | None:
    try:
        info = path.stat(follow_symlinks=False)
        if not stat.S_ISREG(info.st_mode) or info.st_size > MAX_CHECKSUMS:
            raise Unfit("its checksum file is no checksum file: not a regular file, or too large")
        return parse_checksums(path.read_bytes())
    except (FileNotFoundError, IsADirectoryError):
        return None
