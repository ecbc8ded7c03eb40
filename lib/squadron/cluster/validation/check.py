"""Whether manifests and files of `ray up` are right, before anything is applied."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Hashable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from squadron.cluster.rendering.spec import is_pinned
from squadron.cluster.validation import core_kinds, definitions, rules
from squadron.cluster.validation.definitions import Problem, Schema
from squadron.core.errors import InputError, suggest

_TEMPLATE = ("properties", "spec", "properties", "headGroupSpec", "properties", "template")


def check_files(files: Sequence[Path], schemas: Mapping[str, Schema]) -> list[str]:
    """A sentence for each thing that is wrong, with file and path; empty if nothing is. Without `schemas`, by kind,
    Ray's kinds are held to our own rules alone. Raises InputError for a file that cannot be read."""
    found = []
    for file in files:
        documents = read_documents(file)
        for index, document in enumerate(documents):
            where = str(file) if len(documents) == 1 else f"{file}, document {index + 1}"
            found += [f"{where}: {problem}" for problem in find_problems(document, schemas)]
    return found


def read_documents(file: Path) -> list[Any]:
    """The documents of a file. Raises InputError for what is no YAML, or says a key twice."""
    try:
        return [one for one in yaml.load_all(file.read_text(encoding="utf-8"), Loader=_Loader) if one is not None]
    except OSError as error:
        raise InputError(f"the file cannot be read: {error.strerror}", where=str(file)) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"not valid YAML: {error}", where=str(file)) from None


def find_problems(document: Any, schemas: Mapping[str, Schema]) -> list[Problem]:
    """Everything that is wrong with a manifest, or a file of `ray up`."""
    if not isinstance(document, dict):
        return [Problem("(the manifest)", "must be a mapping")]
    if "cluster_name" in document or "provider" in document:
        return list(_of_ray_up(document))
    kind = document.get("kind")
    known = [*rules.RAY_KINDS, *core_kinds.KINDS]
    if kind not in known:
        return [Problem("kind", f"{kind} is not known here; {suggest(str(kind), known)}")]
    found = list(_of_ray(document, schemas) if kind in rules.RAY_KINDS else _of_kubernetes(document, schemas))
    return found or list(rules.find_problems(document))


def _of_ray(document: Mapping[str, Any], schemas: Mapping[str, Schema]) -> Iterator[Problem]:
    wanted = f"{definitions.GROUP}/{definitions.VERSION}"
    if document.get("apiVersion") != wanted:
        yield Problem("apiVersion", f"must be {wanted}")
    yield from core_kinds.find_problems(document.get("metadata", {}), core_kinds.Metadata, "metadata")
    for name in ("apiVersion", "kind", "metadata", "spec"):
        if name not in document:
            yield Problem(name, "is missing")
    described = {name: value for name, value in document.items() if name != "metadata"}
    yield from definitions.find_problems(described, schemas.get(document["kind"], {}))


def _of_kubernetes(document: Mapping[str, Any], schemas: Mapping[str, Schema]) -> Iterator[Problem]:
    yield from core_kinds.find_problems(document, core_kinds.KINDS[document["kind"]])
    template = document.get("spec", {}).get("template") if isinstance(document.get("spec"), dict) else None
    schema: Any = schemas.get("RayCluster")
    if document["kind"] == "StatefulSet" and schema and template is not None:
        for key in _TEMPLATE:  # a pod is a pod
            schema = schema[key]
        yield from definitions.find_problems(template, schema, "spec.template")


def _of_ray_up(document: Mapping[str, Any]) -> Iterator[Problem]:
    found = list(definitions.find_json_problems(document, _ray_up_schema()))
    yield from found
    if found:
        return
    if not is_pinned(document.get("docker", {}).get("image")):
        yield Problem("docker.image", "must have a digest, or a tag that is not latest")
    if not any("RAY_AUTH_MODE=token" in command for command in document.get("setup_commands", ())):
        yield Problem("setup_commands", "must set RAY_AUTH_MODE=token: anybody who reaches Ray could run code")
    start = [one for one in document.get("head_start_ray_commands", ()) if "ray start" in one]
    if not start or not all("--dashboard-host=127.0.0.1" in command for command in start):
        yield Problem("head_start_ray_commands", "must have the dashboard listen on loopback: it runs jobs")
    for name, kind in document.get("available_node_types", {}).items():
        if not kind.get("min_workers", 0) <= kind.get("max_workers", 0):
            yield Problem(f"available_node_types.{name}.min_workers", "is above max_workers")


@cache
def _ray_up_schema() -> Schema:
    ray = importlib.util.find_spec("ray")
    assert ray is not None and ray.origin is not None
    schema: Schema = json.loads((Path(ray.origin).parent / "autoscaler" / "ray-schema.json").read_text())
    return schema


class _Loader(yaml.SafeLoader):
    """Refuses a key that stands twice, of which YAML's own reader keeps the last."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Hashable, Any]:
        seen = set()
        for key, _ in node.value:
            if key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"{key.value} stands there twice", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)
