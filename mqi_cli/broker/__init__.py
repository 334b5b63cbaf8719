"""The message queue between the conductor and the lanes: one contract, two implementations."""
