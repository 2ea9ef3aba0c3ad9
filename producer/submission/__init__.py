"""Submission: a request becomes a job in the store and in the queues."""
