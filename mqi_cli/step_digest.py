"""What tells two machines' idea of a step apart: a digest that the conductor sends and a worker compares. Pure."""

from __future__ import annotations

import hashlib
import hmac
import json

from mqi_cli.stage import Step


def step_digest(step: Step, *, salt: str) -> str:
    """Return 16 hexadecimal digits that are equal where a step means the same, and cases have the same keys.

    The options of a stage that works on the worker's own files may hold that machine's paths, so they are left out of it;
    and so are options at their default, which a newer mqi may have more of.
    """
    options = {} if step.stage.local else step.options.model_dump(mode="json", exclude_defaults=True)
    meaning = [step.name, step.stage.name, step.host, step.gpus, options]
    text = json.dumps(meaning, sort_keys=True, default=str)
    return hmac.new(salt.encode(), text.encode("utf-8", "surrogateescape"), hashlib.sha256).hexdigest()[:16]
