"""`mqi dead`: messages that were refused for good, with the reason, and a way to send them again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from mqi_cli.cli.group import command_group
from mqi_cli.cli.parameters import DryRun, Format, Json, Yes, confirmed
from mqi_cli.errors import UsageError

if TYPE_CHECKING:
    from mqi_cli.broker.base import Broker, DeadLetter

app = command_group("Look at messages that were refused, and replay them.")

Message = Annotated[str, typer.Argument(metavar="MESSAGE", help="A message's id, or a unique prefix of it.")]


@app.command("list")
def list_(json: Json = False, format: Format = "table") -> None:
    """List dead letters, the oldest first."""
    from mqi_cli.cli.output import Column, clock_time, show

    _, letters = _letters()
    rows = [
        {
            "id": each.id,
            "lane": each.lane,
            "at": each.at,
            "time": clock_time(each.at),
            "reason": each.reason,
            "bytes": len(each.body),
        }
        for each in letters
    ]
    columns = (
        Column("id", "MESSAGE"),
        Column("lane", "LANE"),
        Column("time", "SINCE"),
        Column("bytes", "BYTES", "right"),
        Column("reason", "REASON"),
    )
    show(rows, columns, json=json, format=format, empty="no dead letters")


@app.command("show")
def show_(message: Message) -> None:
    """Show one dead letter, its reason and its body."""
    from mqi_cli.cli.output import say

    _, letters = _letters()
    letter = _one(letters, message)
    say(f"{letter.id}  lane {letter.lane}\n{letter.reason}\n\n{letter.body.decode('utf-8', 'replace')}")


@app.command()
def replay(message: Message) -> None:
    """Send a dead letter to its lane again. Done twice, it has one effect: its id and its fence stay the same."""
    from mqi_cli.broker.base import Outgoing
    from mqi_cli.cli.output import say

    broker, letters = _letters()
    letter = _one(letters, message)
    broker.publish([Outgoing(letter.lane, letter.id, letter.body)])
    broker.drop_dead(letter.lane, letter.id, at=letter.at)  # not the one that it may be again by now
    say(f"{letter.id} is in lane {letter.lane} again")


@app.command()
def purge(
    message: Annotated[str, typer.Argument(metavar="[MESSAGE]", help="Only this one.")] = "",
    yes: Yes = False,
    dry_run: DryRun = False,
) -> None:
    """Remove dead letters for good."""
    from mqi_cli.cli.output import say

    broker, letters = _letters()
    doomed = [_one(letters, message)] if message else letters
    if dry_run or not doomed:
        say(f"{'would remove ' if doomed else ''}{len(doomed)} dead letters")
        return
    if not confirmed(f"Remove {len(doomed)} dead letters for good?", yes=yes):
        say("nothing was done")
        return
    removed = sum(broker.drop_dead(each.lane, each.id) for each in doomed)
    say(f"{removed} removed")


def _letters() -> tuple[Broker, list[DeadLetter]]:
    from mqi_cli.broker import open_broker
    from mqi_cli.cli.operator import Operator
    from mqi_cli.message import EVENTS_LANE

    operator = Operator.open()
    broker: Any = open_broker(operator.config)
    letters = [letter for lane in [EVENTS_LANE, *operator.plugins.lanes()] for letter in broker.dead(lane)]
    return broker, sorted(letters, key=lambda letter: letter.at)


def _one(letters: list[DeadLetter], text: str) -> DeadLetter:
    found = [each for each in letters if each.id.startswith(text)]
    if len({(each.lane, each.id) for each in found}) != 1:
        problem = f"{text} fits {len(found)} dead letters" if found else f"no dead letter is called {text}"
        raise UsageError(problem, hint="mqi dead list")
    return found[0]
