"""Addresses of Redis, stores and S3 servers with a password where one may be written."""

SECRET = "s3cretmarker"

#: Addresses of Redis that are not understood.
WRONG_ADDRESSES = [
    "redis:/user:{}@127.0.0.1:1",
    "user:{}@127.0.0.1:1",
    "{}@127.0.0.1:1",
    "{}",
    "redis://user:a/{}@127.0.0.1:1",
    "redis://user:a\n{}@127.0.0.1:1",
    "redis://user:{}#x@127.0.0.1:1",
    "redis://user:p?{}@127.0.0.1:1",
    "redis://user:{}@[::1",
    "redis://127.0.0.1:1?passwort={}",
    "redis://127.0.0.1:1/{}",
    "redis://127.0.0.1:{}/0",
    "redis://127.0.0.1:1 -a {}",
    "amqp://user:{}@host",
    "//user:{}@127.0.0.1",
    "127.0.0.1:1:{}",
]

ADDRESSES = [
    *WRONG_ADDRESSES,
    "redis://{}@127.0.0.1:1",
    "redis://user:{}@127.0.0.1:1",
    "redis://user@{}@127.0.0.1:1",
    "redis://127.0.0.1:1?password={}",
    "redis://127.0.0.1:1?username={}",
    "unix://:{}@/no/such.sock",
]

STORES = [
    "s3://key:{}@bucket/prefix",
    "s3:/key:{}@bucket/prefix",
    "http://key:{}@host/bucket",
    "file://user:{}@host/folder",
    "key:{}@bucket",
]

ENDPOINTS = [
    "http://user:{}@127.0.0.1:1",
    "http://{}@127.0.0.1:1",
    "user:{}@127.0.0.1:1",
    "http://user:a/{}@127.0.0.1:1",
    "http://user:a\n{}@127.0.0.1:1",
    "http://127.0.0.1:1?key={}",
]
