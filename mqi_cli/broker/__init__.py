"""The message queue between the conductor and the lanes: one contract, two implementations, and the choice between them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mqi_cli.broker.base import Broker
    from mqi_cli.clock import Clock
    from mqi_cli.config.loaded import Config

QUEUE_FILE = "queue.db"  # the embedded queue, beside the state database


def open_broker(config: Config, *, sole: str = "", clock: Clock | None = None) -> Broker:
    """Return the config's broker: RabbitMQ where it has a `broker` section, else the embedded queue.

    `sole` names a lane that this process alone takes from; for the embedded queue the state directory's lock sees to that.
    Connects to nothing and creates nothing: the first verb does, and raises what stands in its way.
    """
    if config.broker is None:
        from mqi_cli.broker.embedded import EmbeddedBroker

        return EmbeddedBroker(config.state_dir / QUEUE_FILE, clock=clock)
    from mqi_cli.broker.rabbitmq import RabbitBroker  # loads pika and asyncio, which few installations need

    return RabbitBroker(config.broker, sole=sole, clock=clock)
