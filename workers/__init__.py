"""The GPU side: models, the engine around them, and the Celery worker around that."""
