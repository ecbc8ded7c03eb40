"""KubeRay's definitions of its kinds, and what of a manifest they do not allow.

A definition is an OpenAPI schema as Kubernetes has it ("structural"). Two of its ways are other than JSON Schema's: a
field that it does not name is dropped without a word, which is a misspelling and refused here; and keywords of its own,
`x-kubernetes-…`, say what JSON Schema cannot
(https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/).
"""

from __future__ import annotations

import gzip
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from squadron.core.errors import InputError, suggest

Schema = Mapping[str, Any]
GROUP, VERSION = "ray.io", "v1"
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True)
class Problem:
    """What is wrong, and at which path of a manifest, such as `spec.headGroupSpec.template`."""

    path: str
    what: str

    def __str__(self) -> str:
        return f"{self.path}: {self.what}"


def read_definitions(path: Path) -> dict[str, Schema]:
    """The schemas by kind from a file, or from all files of a folder, `.yaml` or `.yaml.gz`; also as
    `kubectl get crd … -o yaml` prints several.

    Raises InputError if there is none of KubeRay's.
    """
    files = sorted([*path.glob("*.yaml"), *path.glob("*.yaml.gz")]) if path.is_dir() else [path]
    found: dict[str, Schema] = {}
    for file in files:
        for document in _documents(file):
            items = document.get("items", [document]) if isinstance(document, dict) else []
            for item in items:
                found |= _schemas(item)
    if not found:
        fix = "kubectl get crd rayclusters.ray.io rayjobs.ray.io rayservices.ray.io -o yaml > definitions.yaml"
        raise InputError("there is no definition of KubeRay's", where=str(path), fix=fix)
    return found


def _documents(file: Path) -> list[Any]:
    try:
        content = file.read_bytes()
        return list(yaml.load_all(gzip.decompress(content) if file.suffix == ".gz" else content, Loader=_LOADER))
    except (OSError, EOFError, yaml.YAMLError) as error:
        raise InputError(f"the definitions cannot be read: {error}", where=str(file)) from None


def _schemas(item: Any) -> dict[str, Schema]:
    if not isinstance(item, dict) or item.get("kind") != "CustomResourceDefinition":
        return {}
    spec = item["spec"]
    if spec["group"] != GROUP:
        return {}
    schemas = [one["schema"]["openAPIV3Schema"] for one in spec["versions"] if one["name"] == VERSION]
    return {spec["names"]["kind"]: schemas[0]} if schemas else {}


def find_problems(value: Any, schema: Schema, path: str = "") -> Iterator[Problem]:
    """Everything in a value that a schema of Kubernetes does not allow."""
    for error in _validator()(schema).iter_errors(value):
        where = join(path, *error.absolute_path, *getattr(error, "key", ()))
        yield Problem(where or "(the manifest)", _words(error))


def find_json_problems(value: Any, schema: Schema) -> Iterator[Problem]:
    """Everything in a value that a JSON schema does not allow."""
    from jsonschema import Draft7Validator

    for error in Draft7Validator(schema).iter_errors(value):
        yield Problem(join("", *error.absolute_path) or "(the file)", str(error.message))


def join(path: str, *keys: object) -> str:
    """A path and what follows it: names after dots, numbers in brackets."""
    for key in keys:
        path += f"[{key}]" if isinstance(key, int) else f".{key}" if path else str(key)
    return path


def _words(error: Any) -> str:
    """What JSON Schema's own words do not say of the field itself."""
    shown = repr(error.instance)
    shown = shown if len(shown) <= 60 else f"{shown[:57]}…"
    match error.validator:
        case "type" | "x-kubernetes-int-or-string":
            return f"is {shown} and must be of type {_expected(error)}"
        case "enum":
            return f"is {shown} and must be one of {', '.join(map(str, error.validator_value))}"
        case "pattern":
            return f"{shown} is not of the form {error.validator_value}"
    return str(error.message)


def _expected(error: Any) -> str:
    return "integer or string" if error.validator == "x-kubernetes-int-or-string" else str(error.validator_value)


@cache
def _validator() -> Any:
    """JSON Schema with what Kubernetes adds to it."""
    from jsonschema import Draft202012Validator
    from jsonschema.validators import extend

    own = {
        "type": _type,
        "properties": _properties,
        "required": _required,
        "anyOf": _any_of,
        "pattern": _pattern,
        "format": _format,
        "x-kubernetes-int-or-string": _int_or_string,
        "x-kubernetes-list-map-keys": _map_keys,
        "x-kubernetes-list-type": _list_type,
        "x-kubernetes-validations": _validations,
    }
    return extend(Draft202012Validator, own)


def _error(message: str, *key: object) -> Any:
    from jsonschema import ValidationError

    error = ValidationError(message)
    error.key = key
    return error


def _type(validator: Any, kind: str, value: Any, schema: Schema) -> Iterator[Any]:
    if value is None and schema.get("nullable"):
        return
    if not validator.is_type(value, kind) or (kind in ("integer", "number") and isinstance(value, bool)):
        yield _error(f"is not of type {kind}")
    elif kind == "object" and _is_closed(schema) and "properties" not in schema:
        yield from (_error("there is no such field", key) for key in value)


def _is_closed(schema: Schema) -> bool:
    """Whether fields that are not named are dropped."""
    opened = ("additionalProperties", "x-kubernetes-preserve-unknown-fields", "x-kubernetes-embedded-resource")
    return not any(schema.get(key) for key in opened)


def _properties(validator: Any, properties: Schema, value: Any, schema: Schema) -> Iterator[Any]:
    if not isinstance(value, dict):
        return
    for key, inner in value.items():
        if key in properties:
            yield from validator.descend(inner, properties[key], path=key, schema_path=key)
        elif _is_closed(schema):
            yield _error(f"there is no such field; {suggest(str(key), properties)}", key)


def _required(validator: Any, required: list[str], value: Any, schema: Schema) -> Iterator[Any]:
    if isinstance(value, dict):
        yield from (_error("is missing", key) for key in required if key not in value)


def _any_of(validator: Any, several: list[Schema], value: Any, schema: Schema) -> Iterator[Any]:
    """Stands in the definitions only beside `x-kubernetes-int-or-string`, which says the same."""
    if not schema.get("x-kubernetes-int-or-string") and not any(
        validator.evolve(schema=one).is_valid(value) for one in several
    ):
        yield _error("is none of what is allowed here")


def _int_or_string(validator: Any, holds: bool, value: Any, schema: Schema) -> Iterator[Any]:
    if holds and (isinstance(value, bool) or not isinstance(value, int | str)):
        yield _error("is neither an integer nor a string")


def _pattern(validator: Any, pattern: str, value: Any, schema: Schema) -> Iterator[Any]:
    if isinstance(value, str) and not re.search(pattern, value):
        yield _error(f"{value!r} is not of the form {pattern}")


_BITS = {"int32": 31, "int64": 63}


def _format(validator: Any, name: str, value: Any, schema: Schema) -> Iterator[Any]:
    bits = _BITS.get(name)
    if bits and isinstance(value, int) and not -(2**bits) <= value < 2**bits:
        yield _error(f"{value} does not fit into {bits + 1} bits")


def _map_keys(validator: Any, keys: list[str], value: Any, schema: Schema) -> Iterator[Any]:
    """A list that is a map: no two items have the same keys."""
    if not isinstance(value, list):
        return
    inner = schema["items"].get("properties", {})
    seen: set[tuple[Any, ...]] = set()
    for index, item in enumerate(value):
        if isinstance(item, dict):
            own = tuple(str(item.get(key, inner.get(key, {}).get("default"))) for key in keys)
            if own in seen:
                yield _error(f"there is another with {', '.join(keys)} {', '.join(own)}", index)
            seen.add(own)


def _list_type(validator: Any, kind: str, value: Any, schema: Schema) -> Iterator[Any]:
    if kind == "set" and isinstance(value, list) and len({repr(one) for one in value}) < len(value):
        yield _error("has an item twice")


def _has_both(value: Mapping[str, Any]) -> bool:
    return "onSuccess" in value and "onFailure" in value


RULES: dict[str, Callable[[Any], bool]] = {
    # Of changes: there is no earlier manifest here.
    "self == oldSelf": lambda value: True,
    "self in ['ray.io/kuberay-operator', 'kueue.x-k8s.io/multikueue']": lambda value: (
        value in ("ray.io/kuberay-operator", "kueue.x-k8s.io/multikueue")
    ),
    "!(has(self.jobStatus) && has(self.jobDeploymentStatus))": lambda value: (
        not ("jobStatus" in value and "jobDeploymentStatus" in value)
    ),
    "has(self.jobStatus) || has(self.jobDeploymentStatus)": lambda value: (
        "jobStatus" in value or "jobDeploymentStatus" in value
    ),
    "!((has(self.onSuccess) || has(self.onFailure)) && has(self.deletionRules))": lambda value: (
        not (("onSuccess" in value or "onFailure" in value) and "deletionRules" in value)
    ),
    "((has(self.onSuccess) && has(self.onFailure)) || has(self.deletionRules))": lambda value: (
        _has_both(value) or "deletionRules" in value
    ),
}
"""What KubeRay's definitions say in the language CEL, by its text. One that is not here is not checked, and said."""


def _validations(validator: Any, rules: list[Mapping[str, str]], value: Any, schema: Schema) -> Iterator[Any]:
    for one in rules:
        holds = RULES.get(one["rule"])
        if holds is not None and not holds(value):
            yield _error(one.get("message", one["rule"]))


def unknown_rules(schema: Any) -> set[str]:
    """The texts of rules of a definition that are not checked here."""
    if isinstance(schema, list):
        return set().union(*map(unknown_rules, schema))
    if not isinstance(schema, Mapping):
        return set()
    own = {one["rule"] for one in schema.get("x-kubernetes-validations", ()) if isinstance(one, Mapping)}
    return (own - RULES.keys()).union(*map(unknown_rules, schema.values()))
