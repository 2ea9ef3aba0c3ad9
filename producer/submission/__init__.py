"""From a request to a job in the store and in the queues."""
