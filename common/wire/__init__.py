"""The wire between producers and workers: messages, signatures, queues, Celery."""
