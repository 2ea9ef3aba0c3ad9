"""The chart's Secret, or another one named in its place; ``test_lifecycle.py`` upgrades it."""

import base64
import re

import pytest

from tests.support.chart import HELMS, RELEASE, find, find_all, render

USERS = ("producer", "keeper", "worker", "flower", "metrics")


def decoded(objects):
    data = find(objects, "Secret", "secrets")["data"]
    return {name: base64.b64decode(value).decode() for name, value in data.items()}


@pytest.mark.parametrize("helm", HELMS)
def test_it_has_a_value_of_its_own_for_each_purpose(helm):
    found = decoded(render(helm=helm))
    assert set(found) == {"message-key", "flower-login", *(f"{user}-password" for user in USERS)}
    user, _, password = found.pop("flower-login").partition(":")
    assert user == "admin"
    values = [password, *found.values()]
    assert all(re.fullmatch("[A-Za-z0-9]{48}", value) for value in values)  # fits into a URL
    assert len(set(values)) == len(values)


def test_it_outlives_the_release():
    secret = find(render(), "Secret", "secrets")
    assert secret["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"


def test_one_of_the_user_s_takes_its_place_everywhere():
    objects = render({"secrets": {"existingSecret": "mine"}})
    assert not find_all(objects, "Secret")
    assert f"{RELEASE}-secrets" not in str(objects)


def test_passwords_of_an_external_redis_are_not_made_up():
    external = {"host": "redis.example", "authentication": "none"}
    found = decoded(render({"redis": {"enabled": False}, "externalRedis": external}))
    assert set(found) == {"message-key", "flower-login"}
