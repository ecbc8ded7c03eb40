"""What a manifest must keep to beyond its definition: secrets by reference, nobody root, a token for every caller.

Each rule is a function that finds problems; a manifest is refused for any.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import yaml

from squadron.cluster.validation.definitions import Problem, join
from squadron.cluster.validation.pod_rules import Pod, find_container_problems, find_pod_problems
from squadron.core.masking import mask_secrets, mask_text, names_secret

RAY_KINDS = {"RayCluster": "spec", "RayJob": "spec.rayClusterSpec", "RayService": "spec.rayClusterConfig"}
"""KubeRay's kinds, and where in each the cluster is described."""
_TOKENS_SINCE = (2, 52)
_ACCESS = "/var/run/secrets/kubernetes.io/serviceaccount"


def find_problems(manifest: Mapping[str, Any]) -> Iterator[Problem]:
    """Everything that a manifest does not keep to. It must be one that its definition allows."""
    claims = {one["metadata"]["name"] for one in _get(manifest, "spec.volumeClaimTemplates", ())}
    for pod in _pods(manifest):
        yield from find_pod_problems(pod, claims)
    kind = manifest.get("kind", "")
    if kind in RAY_KINDS:
        path = RAY_KINDS[kind]
        yield from _cluster(path, _get(manifest, path, {}))
    if kind == "NetworkPolicy":
        yield from _policy(manifest["spec"])
    if kind == "StatefulSet":
        yield from _stateful(manifest["spec"])
    if kind == "RayJob":
        yield from _job(manifest["spec"])
    if kind == "RayService":
        yield from _service(manifest["spec"])


def _pods(manifest: Mapping[str, Any]) -> Iterator[Pod]:
    kind = manifest.get("kind", "")
    if kind == "StatefulSet":
        yield Pod("spec.template", manifest["spec"]["template"], None)
    if kind not in RAY_KINDS:
        return
    path = RAY_KINDS[kind]
    cluster = _get(manifest, path, {})
    if "headGroupSpec" in cluster:
        yield Pod(f"{path}.headGroupSpec.template", cluster["headGroupSpec"]["template"], "ray-head")
    for index, group in enumerate(cluster.get("workerGroupSpecs", ())):
        yield Pod(f"{path}.workerGroupSpecs[{index}].template", group["template"], "ray-worker")
    if "submitterPodTemplate" in manifest["spec"]:
        yield Pod("spec.submitterPodTemplate", manifest["spec"]["submitterPodTemplate"], "ray-job-submitter")


def _cluster(path: str, cluster: Mapping[str, Any]) -> Iterator[Problem]:
    auth = cluster.get("authOptions", {})
    if auth.get("mode") != "token":
        yield Problem(f"{path}.authOptions.mode", "must be token: anybody who reaches Ray could run code")
    if not auth.get("secretName"):
        yield Problem(f"{path}.authOptions.secretName", "is missing: nobody would know the token beforehand")
    version = re.match(r"(\d+)\.(\d+)\.", cluster.get("rayVersion", ""))
    if not version or (int(version[1]), int(version[2])) < _TOKENS_SINCE:
        yield Problem(f"{path}.rayVersion", "must be that of the image, 2.52 or later: earlier ones have no tokens")
    head = cluster.get("headGroupSpec", {})
    if head.get("serviceType", "ClusterIP") != "ClusterIP" or head.get("enableIngress"):
        yield Problem(
            f"{path}.headGroupSpec.serviceType", "must be ClusterIP, without an ingress: it has the dashboard"
        )
    if "gcsFaultToleranceOptions" in cluster:
        yield from _redis(f"{path}.gcsFaultToleranceOptions", cluster["gcsFaultToleranceOptions"])
    yield from _groups(f"{path}.workerGroupSpecs", cluster.get("workerGroupSpecs", ()))
    if cluster.get("enableInTreeAutoscaling"):
        yield from _autoscaler(f"{path}.autoscalerOptions", cluster)
    elif "autoscalerOptions" in cluster:
        yield Problem(f"{path}.enableInTreeAutoscaling", "must be true for autoscalerOptions to be heeded")
    yield from _same_tls(path, cluster)


def _redis(path: str, options: Mapping[str, Any]) -> Iterator[Problem]:
    if options.get("backend", "redis") != "redis":
        return
    if not options.get("redisAddress"):
        yield Problem(f"{path}.redisAddress", "is missing")
    if not _get(options, "redisPassword.valueFrom.secretKeyRef.name", ""):
        yield Problem(f"{path}.redisPassword", "must refer to a Secret: who writes there changes what the head knows")


def _groups(path: str, groups: Sequence[Mapping[str, Any]]) -> Iterator[Problem]:
    if not groups:
        yield Problem(path, "is missing: the head takes no work")
    seen: set[str] = set()
    for index, group in enumerate(groups):
        if group["groupName"] in seen:
            yield Problem(f"{path}[{index}].groupName", f"there is another group {group['groupName']}")
        seen.add(group["groupName"])
        least, most = group["minReplicas"], group["maxReplicas"]
        if not 0 <= least <= most:
            yield Problem(f"{path}[{index}].minReplicas", f"is {least}, and maxReplicas {most}")
        elif not least <= group.get("replicas", least) <= most:
            yield Problem(f"{path}[{index}].replicas", f"must be between {least} and {most}")


def _autoscaler(path: str, cluster: Mapping[str, Any]) -> Iterator[Problem]:
    options = cluster.get("autoscalerOptions", {})
    if options.get("version") != "v2":
        yield Problem(f"{path}.version", "must be v2")
    if options.get("idleTimeoutSeconds", 0) < 0:
        yield Problem(f"{path}.idleTimeoutSeconds", "must not be below 0")
    volumes = {one.get("name") for one in _get(cluster, "headGroupSpec.template.spec.volumes", ())}
    yield from find_container_problems(path, options, volumes)
    if not any(one["mountPath"] == _ACCESS for one in options.get("volumeMounts", ())):
        yield Problem(f"{path}.volumeMounts", f"nothing is mounted at {_ACCESS}: it could not ask Kubernetes for pods")


def _same_tls(path: str, cluster: Mapping[str, Any]) -> Iterator[Problem]:
    """All nodes and the autoscaler speak TLS, or none does: else they do not understand each other."""
    places = {f"{path}.headGroupSpec": _first(cluster.get("headGroupSpec", {}))}
    for index, group in enumerate(cluster.get("workerGroupSpecs", ())):
        places[f"{path}.workerGroupSpecs[{index}]"] = _first(group)
    if cluster.get("enableInTreeAutoscaling"):
        places[f"{path}.autoscalerOptions"] = cluster.get("autoscalerOptions", {})
    uses = {place: any(one["name"] == "RAY_USE_TLS" for one in have.get("env", ())) for place, have in places.items()}
    if any(uses.values()):
        for place in (place for place, does in uses.items() if not does):
            yield Problem(place, "RAY_USE_TLS is set elsewhere in the cluster and not here")


def _first(group: Mapping[str, Any]) -> Mapping[str, Any]:
    containers: list[Mapping[str, Any]] = _get(group, "template.spec", {}).get("containers") or [{}]
    return containers[0]


def _job(spec: Mapping[str, Any]) -> Iterator[Problem]:
    if not spec.get("entrypoint"):
        yield Problem("spec.entrypoint", "is missing")
    elif mask_text(spec["entrypoint"]) != spec["entrypoint"]:
        yield Problem("spec.entrypoint", "holds a secret; give it by the environment")
    if spec.get("ttlSecondsAfterFinished") and not spec.get("shutdownAfterJobFinishes"):
        yield Problem("spec.shutdownAfterJobFinishes", "must be true where ttlSecondsAfterFinished is given")
    if text := spec.get("runtimeEnvYAML"):
        variables = (_load(text) or {}).get("env_vars", {})
        yield from (
            Problem("spec.runtimeEnvYAML", f"{name} is a secret written out")
            for name, value in variables.items()
            if names_secret(name, value)
        )


def _service(spec: Mapping[str, Any]) -> Iterator[Problem]:
    """What Ray Serve is to run is a text here; Ray's own schema knows it."""
    from pydantic import ValidationError
    from ray.serve.schema import ServeDeploySchema

    path, config = "spec.serveConfigV2", _load(spec.get("serveConfigV2", ""))
    if config is None:
        yield Problem(path, "is missing, or not the YAML of a mapping")
        return
    for index, group in enumerate(_get(spec, "rayClusterConfig.workerGroupSpecs", ())):
        probe = _first(group).get("readinessProbe", {})
        if not _get(probe, "httpGet.path", "").startswith("/") or _get(probe, "httpGet.path", "").startswith("/-/"):
            where = f"spec.rayClusterConfig.workerGroupSpecs[{index}].template.spec.containers[0].readinessProbe"
            yield Problem(where, "must ask /ready: the path that KubeRay asks is closed in front of Ray Serve")
    if mask_secrets(config) != config:
        yield Problem(path, "holds a secret; give it by the environment")
    try:
        described = ServeDeploySchema.model_validate(config)
    except ValidationError as error:
        yield from (Problem(join(path, *one["loc"]), one["msg"]) for one in error.errors(include_url=False))
        return
    if not described.applications:
        yield Problem(f"{path}.applications", "is empty: nothing would be served")


def _policy(spec: Mapping[str, Any]) -> Iterator[Problem]:
    """All ports are open between the nodes of a cluster alone."""
    for index, rule in enumerate(spec["ingress"]):
        inner = all("namespaceSelector" not in one and one["podSelector"].get("matchLabels") for one in rule["from"])
        if not rule.get("ports") and not inner:
            yield Problem(
                f"spec.ingress[{index}]", "opens all ports; give them, or let in labelled pods of the cluster alone"
            )


def _stateful(spec: Mapping[str, Any]) -> Iterator[Problem]:
    have = _get(spec, "template.metadata.labels", {})
    if not spec["selector"]["matchLabels"].items() <= have.items():
        yield Problem("spec.template.metadata.labels", "must have those of spec.selector")


def _load(text: str) -> dict[str, Any] | None:
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        return None
    return value if isinstance(value, dict) else None


def _get(value: Mapping[str, Any], path: str, default: Any) -> Any:
    for key in path.split("."):
        if not isinstance(value, Mapping) or key not in value:
            return default
        value = value[key]
    return value
