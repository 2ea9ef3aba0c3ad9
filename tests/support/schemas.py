"""What Kubernetes and KEDA say an object must look like, strictly: no unknown field."""

import copy
import functools
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError

from tests.support.chart import Object, name_of, tools, unavailable

#: The oldest version that the chart allows, one in between, and the newest that has schemas.
KUBERNETES = ("1.29", "1.33", "1.37")

KEDA = Path(__file__).parents[3] / "shared" / "data" / "keda"


@functools.cache
def _kubernetes_validate() -> Any:
    """Return the module, which reads each of its files once."""
    folder = tools() / "kubernetes-validate"
    if not folder.is_dir():
        unavailable(f"needs kubernetes-validate in {folder}: make chart gets it")
    sys.path.append(str(folder))
    from kubernetes_validate import utils

    utils.schema_contents = functools.cache(utils.schema_contents)
    return utils


def kubernetes_errors(item: Object, version: str) -> list[str]:
    """Return what a version of Kubernetes would refuse in an object."""
    utils = _kubernetes_validate()
    try:
        found = utils.validate(item, version, strict=True)
    except ValidationError as error:
        path = ".".join(map(str, error.absolute_path))
        return [f"{item['kind']} {name_of(item)}: {path}: {error.message}"]
    except utils.SchemaNotFoundError as error:
        return [f"{item['kind']} {name_of(item)}: {error.message}"]
    assert found == version, f"there are no schemas of {version}"
    return []


def scaled_object_errors(item: Object) -> list[str]:
    """Return what KEDA would refuse in a ScaledObject, or not know."""
    errors = [
        f"{'.'.join(map(str, error.absolute_path))}: {error.message}"
        for error in _scaled_objects().iter_errors(item)
    ]
    for trigger in item["spec"]["triggers"]:
        errors += trigger_errors(trigger["type"], trigger["metadata"])
    return errors


def trigger_errors(kind: str, metadata: Mapping[str, Any]) -> list[str]:
    """Return what a scaler does not know, or misses, in the metadata of a trigger."""
    if kind not in _scalers():
        return [f"there is no scaler {kind}"]
    parameters = {row["name"]: row for row in _scalers()[kind]}
    errors = [f"{name} is unknown" for name in metadata if name not in parameters]
    for name, row in parameters.items():
        needed = not row.get("optional") and "default" not in row
        if name not in metadata:
            errors += [f"{name} is missing"] if needed else []
        elif not isinstance(metadata[name], str):
            errors.append(f"{name} is no text")
        elif metadata[name] not in row.get("allowedValue", [metadata[name]]):
            errors.append(f"{name} must be one of {row['allowedValue']}")
    return errors


def _keda(name: str) -> str:
    path = KEDA / name
    if not path.is_file():
        pytest.skip("needs KEDA's schemas, which lie beside the project where it is developed")
    return path.read_text()


@functools.cache
def _scaled_objects() -> Draft202012Validator:
    crd = yaml.safe_load(_keda("keda.sh_scaledobjects.yaml"))
    [version] = (row for row in crd["spec"]["versions"] if row["name"] == "v1alpha1")
    return Draft202012Validator(strict(version["schema"]["openAPIV3Schema"]))


@functools.cache
def _scalers() -> dict[str, list[dict[str, Any]]]:
    rows = json.loads(_keda("scalers-schema.json"))["scalers"]
    return {row["type"]: row["parameters"] for row in rows}


def strict(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return a schema whose objects have the fields that it names and no others."""
    found = copy.deepcopy(dict(schema))
    for key, value in found.items():
        if key == "properties":
            found[key] = {name: strict(below) for name, below in value.items()}
        elif key in ("items", "additionalProperties") and isinstance(value, dict):
            found[key] = strict(value)
    open_ended = found.get("x-kubernetes-preserve-unknown-fields")
    if "properties" in found and not open_ended:
        found.setdefault("additionalProperties", False)
    return found
