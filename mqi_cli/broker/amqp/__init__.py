"""AMQP 0-9-1 as awaitables, on pika: the one place that imports it and knows its errors."""
