"""Puts pip into a virtual environment that was made without it: Debian keeps ensurepip, which would do it, in a package
that only root can install. Takes pip's newest wheel from the package index, proves its hash, and lets it install itself.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
import urllib.parse
import urllib.request
from pathlib import Path

INDEX = os.environ.get("PIP_INDEX_URL", "https://pypi.org/simple").rstrip("/") + "/pip/"
_WHEEL = re.compile(r"pip-([0-9.]+)-py3-none-any\.whl")  # final releases only


def main() -> None:
    """Install pip for the Python that runs this."""
    accept = {"Accept": "application/vnd.pypi.simple.v1+json"}
    listing = urllib.request.Request(INDEX, headers=accept)  # noqa: S310  an index of the operator's own choice
    files = json.loads(_get(listing))["files"]
    wheels = {found[1]: each for each in files if (found := _WHEEL.fullmatch(each["filename"])) and not each["yanked"]}
    newest = wheels[max(wheels, key=lambda version: [int(part) for part in version.split(".")])]
    content = _get(urllib.parse.urljoin(INDEX, newest["url"]))
    if hashlib.sha256(content).hexdigest() != newest["hashes"]["sha256"]:
        sys.exit(f"{newest['filename']} is not what the index says it is")
    with tempfile.TemporaryDirectory() as place:
        wheel = Path(place) / newest["filename"]
        wheel.write_bytes(content)
        command = [sys.executable, f"{wheel}/pip", "install", "--quiet", "--no-index", str(wheel)]
        subprocess.run(command, check=True)


def _get(what: str | urllib.request.Request) -> bytes:
    with urllib.request.urlopen(what, timeout=60) as answer:  # noqa: S310
        content: bytes = answer.read()
    return content


main()
