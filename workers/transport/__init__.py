"""Celery and kombu as a worker uses them."""
