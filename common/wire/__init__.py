"""Between producers and workers: messages, signatures, queues, the Celery application."""
