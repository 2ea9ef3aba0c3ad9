"""Import what the processes of an image import, which writes its byte code and no other.

``python docker/byte_code.py producer`` (or ``worker``). Packages are installed without byte code:
most of it would never be read. A module that is not named here is compiled whenever it is imported.
"""

import sys
from importlib import import_module

COMMON = (
    *("boto3.s3.transfer", "celery.app.amqp", "celery.app.control", "celery.app.events"),
    *("cyclopts", "h5py", "kombu.transport.redis", "numpy.random", "prometheus_client"),
    *("pydantic_settings", "redis.commands", "rich.progress", "rich.table", "xopen"),
)
PRODUCER = ("flower.command", "flower.app", "flower.urls")
WORKER = (
    *("celery.apps.worker", "celery.bin.worker", "celery.concurrency.thread"),
    *("celery.worker.consumer", "celery.worker.strategy", "huggingface_hub", "safetensors.torch"),
    *("tokenizers", "torch", "torch.nn.attention", "torch._dynamo"),
)

for module in (*COMMON, *{"producer": PRODUCER, "worker": WORKER}[sys.argv[1]]):
    import_module(module)

import boto3  # noqa: E402

# Reads the description of the service, and imports what makes a client of it.
boto3.client("s3", region_name="us-east-1")
