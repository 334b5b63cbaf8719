"""The quick way to remove a small case from a host: one request. Runs there under Python 3.6 or later, as a resident program."""

import os
import shutil

MOST = 1000  # entries; what takes longer goes step by step


def answer(request: bytes) -> bytes:
    """Remove a directory and all below it, links not followed: `clear` when nothing is there any more, else `left`."""
    try:
        if os.path.islink(request) or (os.path.lexists(request) and not os.path.isdir(request)):
            return b"left"
        count = 0
        for _, directories, names in os.walk(request):
            count += len(directories) + len(names)
            if count > MOST:
                return b"left"
        if os.path.lexists(request):
            shutil.rmtree(request)
    except OSError:
        return b"left"
    return b"left" if os.path.lexists(request) else b"clear"
