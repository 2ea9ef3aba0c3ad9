"""What keeps jobs going: queues fed, losses noticed, ledgers restored."""
