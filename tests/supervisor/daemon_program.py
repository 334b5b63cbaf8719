"""A daemon on children that a test names: STATE_DIR CHILDREN_AS_JSON STOP_WITHIN."""

import json
import os
import random
import sys
from pathlib import Path

from mqi_cli.clock import Clock
from mqi_cli.config.model import LogSection
from mqi_cli.crew import ChildSpec, Plan
from mqi_cli.daemon import DaemonFiles
from mqi_cli.errors import AlreadyRunning
from mqi_cli.lock import Lock
from mqi_cli.notify import Notifier
from mqi_cli.supervisor import Supervisor

files = DaemonFiles(Path(sys.argv[1]))
children = tuple(ChildSpec(**{**each, "argv": tuple(each["argv"])}) for each in json.loads(sys.argv[2]))
plan = Plan(children, log=LogSection(), stop_within=float(sys.argv[3]))
lock = Lock(files.lock)
try:
    lock.acquire()
except AlreadyRunning as error:
    print(error.message, file=sys.stderr)
    sys.exit(error.exit_code)
environment = dict(os.environ)
notifier = Notifier(environment)
supervisor = Supervisor(
    plan,
    files,
    reload=lambda: plan,
    alone=lock.still_counts,
    environment=environment,
    notifier=notifier,
    clock=Clock(),
    random=random.Random(1),
)
supervisor.run()
lock.release()
