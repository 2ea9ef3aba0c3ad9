"""Messages: the Celery consumer of a worker, and the guard that checks what it gets."""
