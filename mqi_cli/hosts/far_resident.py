"""The far end of a resident session: a loop that keeps programs loaded and hands them requests. Runs on the host.

It is sent as text to Python 3.6 or later and imports nothing of mqi. A program is a module text with a function
`answer(request: bytes) -> bytes`. Nobody asked anything for `IDLE` seconds: it ends by itself.
"""

import contextlib
import os
import select

GREETING = b"mqi: resident 1\n"
HEAD = 81  # bytes: verb, 64 hex digits that name a program, size
IDLE = 90.0  # seconds


def begin() -> tuple:
    """Take over the streams; what programs start gets none of them."""
    source, sink, null = os.dup(0), os.dup(1), os.open(os.devnull, os.O_RDWR)
    for number in range(3):
        os.dup2(null, number)
    os.close(null)
    return source, sink


def take(source: int, size: int) -> bytes:
    """Read exactly so many bytes; fewer only at the end."""
    pieces = []
    while size:
        piece = os.read(source, min(size, 1 << 20))
        if not piece:
            break
        pieces.append(piece)
        size -= len(piece)
    return b"".join(pieces)


def give(sink: int, word: bytes, body: bytes) -> None:
    """Send one answer."""
    data = memoryview(b"%s %010d\n" % (word, len(body)) + body)
    while data:
        data = data[os.write(sink, data) :]


def collect() -> None:
    """Collect what programs started and left to themselves, once it has ended."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def serve(source: int, sink: int) -> None:
    """Answer until nobody asks any more."""
    loaded = {}  # type: dict
    while select.select([source], [], [], IDLE)[0]:
        collect()
        head = take(source, HEAD)
        if len(head) < HEAD:
            return
        verb, name, size = head.split()
        body = take(source, int(size))
        if len(body) < int(size):
            return  # half a request: the connection broke
        try:
            if verb == b"load":
                space = {"__name__": "mqi"}  # type: dict
                exec(compile(body.decode(), "mqi", "exec"), space)
                loaded[name] = space["answer"]
                continue
            answer = loaded[name](body)
        except Exception as error:  # noqa: BLE001  its text may hold a file's name: its kind alone is told
            give(sink, b"fail", type(error).__name__.encode())
        else:
            give(sink, b"done", answer)


if __name__ == "__main__":
    streams = begin()
    give(streams[1], b"hello", GREETING)
    serve(*streams)
