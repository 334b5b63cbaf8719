"""AiiDA's side of the comparison. Runs in AiiDA's own environment (`verdi run`'s Python) and imports nothing of mqi.

    aiida_peer.py set-up COMPUTER     lowers the poll interval of the computer, and makes the code
    aiida_peer.py run COMPUTER COUNT  submits so many jobs, waits for their ends, prints JSON

A job is what a case of ours is: three small files go to the host, `cp` runs there, its result comes back.
"""

from __future__ import annotations

import io
import json
import sys
import time

from aiida import load_profile, orm
from aiida.common.datastructures import CalcInfo, CodeInfo
from aiida.engine import CalcJob, submit

FILES = 3
FILE_BYTES = 20_000
LIMIT = 1800.0  # seconds


class CopyJob(CalcJob):
    """Copies one of its three files on the host and fetches the copy."""

    @classmethod
    def define(cls, spec):  # type: ignore[no-untyped-def]
        """Say what it takes and gives."""
        super().define(spec)
        for number in range(FILES):
            spec.input(f"file_{number}", valid_type=orm.SinglefileData)
        spec.inputs["metadata"]["options"]["resources"].default = {"num_machines": 1, "num_mpiprocs_per_machine": 1}
        spec.inputs["metadata"]["options"]["withmpi"].default = False

    def prepare_for_submission(self, folder):  # type: ignore[no-untyped-def]
        """Say what goes up, what runs, and what comes back."""
        code = CodeInfo()
        code.code_uuid = self.inputs.code.uuid
        code.cmdline_params = ["data-0", "result"]
        info = CalcInfo()
        info.codes_info = [code]
        info.local_copy_list = [
            (node.uuid, node.filename, node.filename)
            for node in (self.inputs[f"file_{number}"] for number in range(FILES))
        ]
        info.retrieve_list = ["result"]
        return info


def set_up(name: str) -> None:
    """Lower the computer's poll interval as far as AiiDA lets it, and make the code."""
    computer = orm.load_computer(name)
    computer.set_minimum_job_poll_interval(0.0)
    orm.InstalledCode(label="copy", computer=computer, filepath_executable="/bin/cp").store()


def run(name: str, count: int) -> None:
    """Submit jobs and wait until all have ended; print the seconds from the first submission to the last end."""
    from aiida_peer import CopyJob as Importable  # the daemon looks it up by this name, not by __main__

    code = orm.load_code(f"copy@{name}")
    began = time.time()
    nodes = []
    for job in range(count):
        files = {}
        for number in range(FILES):
            text = f"case-{job} {number} ".encode()
            files[f"file_{number}"] = orm.SinglefileData(
                io.BytesIO(text * (FILE_BYTES // len(text))), filename=f"data-{number}"
            )
        nodes.append(submit(Importable, code=code, **files))
    submitted = time.time()
    end = began + LIMIT
    while time.time() < end and not all(node.is_terminated for node in nodes):
        time.sleep(0.1)
    seconds = time.time() - began
    good = sum(
        node.is_finished_ok and "result" in node.outputs.retrieved.base.repository.list_object_names() for node in nodes
    )
    print(json.dumps({"jobs": count, "good": good, "seconds": seconds, "submitted": submitted - began}))


if __name__ == "__main__":
    load_profile()
    if sys.argv[1] == "set-up":
        set_up(sys.argv[2])
    else:
        run(sys.argv[2], int(sys.argv[3]))
