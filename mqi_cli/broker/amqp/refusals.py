"""What the broker refuses, and why it cannot be reached: pika's errors said in ours, with what to do."""

from __future__ import annotations

import socket
import ssl

import pika.exceptions as errors
from pika.adapters.utils import connection_workflow as workflow

from mqi_cli.broker.amqp.login import Login
from mqi_cli.errors import BrokerError, BrokerRefused, BrokerUnreachable

REACH_HINT = "check that it runs and that no firewall is between; the work goes on by itself when it is back"


class QueueMissing(BrokerUnreachable):
    """The queue is not there (any more): declare it again."""


def connect_error(error: BaseException, login: Login) -> BrokerError:
    """Say why there is no connection. pika wraps the cause several times over."""
    while isinstance(error, workflow.AMQPConnectionWorkflowFailed | workflow.AMQPConnectorPhaseErrorBase):
        error = error.exceptions[-1] if isinstance(error, workflow.AMQPConnectionWorkflowFailed) else error.exception
    place = login.place
    if isinstance(error, ssl.SSLCertVerificationError):
        return BrokerRefused(
            f"the certificate of the broker {place} is not accepted: {error.verify_message or error.reason}",
            hint="name the CA that signed it in broker.tls.ca_file, and the broker in broker.url as its certificate does",
        )
    if isinstance(error, ssl.SSLError):
        return BrokerRefused(
            f"no TLS with the broker {place}: {error.reason or 'the handshake fails'}",
            hint="amqps:// needs the broker's TLS port, 5671 by default",
        )
    if isinstance(error, socket.gaierror):
        return BrokerUnreachable(f"the broker's name {login.host} is not known to the name service", hint=REACH_HINT)
    text = str(error.args[0] if error.args and len(error.args) == 1 else error)
    if isinstance(error, errors.AuthenticationError) or "(403)" in text:
        return BrokerRefused(
            f"the broker {place} does not let the user {login.user} in: wrong user or password",
            hint="check broker.url and broker.password_file; rabbitmqctl authenticate_user tells whether they fit",
        )
    if "(530)" in text and "limit" not in text and "is down" not in text:
        return BrokerRefused(
            f"the broker {place} has no virtual host {login.vhost} for the user {login.user}",
            hint=f"rabbitmqctl add_vhost {login.vhost}; "
            f"rabbitmqctl set_permissions --vhost {login.vhost} {login.user} '.*' '.*' '.*'",
        )
    if isinstance(error, errors.IncompatibleProtocolError):
        return BrokerUnreachable(
            f"what listens on {place} broke off before it spoke AMQP",
            hint="if this lasts: is it a TLS port? then the URL begins with amqps://",
        )
    return BrokerUnreachable(f"the broker {place} cannot be reached{_because(error)}", hint=REACH_HINT)


def lost(error: BaseException, login: Login) -> BrokerError:
    """Say why a connection or a channel ended."""
    code, text = getattr(error, "reply_code", 0), getattr(error, "reply_text", "")
    if code == 404 and "no queue" in text:
        return QueueMissing(
            f"a queue is missing on the broker {login.place}: {text}", hint="it is made again by itself"
        )
    if code == 406 and "inequivalent arg" in text:
        return BrokerRefused(
            f"a queue exists on the broker {login.place} with other settings than mqi needs: {text}",
            hint="stop what uses it, then delete it: rabbitmqctl delete_queue NAME (no case is lost: what is due is sent "
            "again); or set another broker.prefix",
        )
    if code == 405:
        return BrokerRefused(
            f"another conductor works with these queues on the broker {login.place}, or did until a moment ago: {text}",
            hint="give each installation a broker.prefix of its own; of two with one prefix, one waits until the other ends",
        )
    if code == 403:
        return BrokerRefused(
            f"the broker {login.place} forbids it to the user {login.user}: {text}",
            hint=f"rabbitmqctl set_permissions --vhost {login.vhost} {login.user} '^mqi[.].*' '.*' '.*'",
        )
    if isinstance(error, errors.AMQPHeartbeatTimeout):
        return BrokerUnreachable(f"the broker {login.place} fell silent", hint=REACH_HINT)
    return BrokerUnreachable(f"the connection to the broker {login.place} ended{_because(error)}", hint=REACH_HINT)


def _because(error: BaseException) -> str:
    """Give the cause as far as the system or the broker named one; pika's own wording helps nobody."""
    text = getattr(error, "reply_text", "") or (error.strerror if isinstance(error, OSError) else "")
    return f": {text}" if text else ""
