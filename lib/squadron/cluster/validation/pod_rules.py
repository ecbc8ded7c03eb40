"""What a pod must keep to: nobody root, nothing writable but what is mounted, secrets by reference alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set
from typing import Any, NamedTuple

from squadron.cluster.certificates import environment
from squadron.cluster.rendering.pods import CLUSTER_LABEL, NODE_LABEL
from squadron.cluster.rendering.spec import is_pinned
from squadron.cluster.validation.definitions import Problem
from squadron.core.masking import mask_secrets, names_secret

_LEAST_GRACE_S = 30
_TLS = tuple(environment(""))
_RAY_WRITES = frozenset({"/tmp", "/dev/shm"})
_HANDLERS = frozenset({"exec", "grpc", "httpGet", "tcpSocket"})


class Pod(NamedTuple):
    """A pod within a manifest: where it stands, and the container that it is for, if Ray asks for a name."""

    path: str
    template: Mapping[str, Any]
    container: str | None


def find_pod_problems(pod: Pod, claims: Set[str]) -> Iterator[Problem]:
    """Everything that a pod does not keep to. `claims` are the volumes that it gets from elsewhere."""
    path, spec = f"{pod.path}.spec", pod.template.get("spec", {})
    if spec.get("automountServiceAccountToken") is not False:
        yield Problem(f"{path}.automountServiceAccountToken", "must be false: no job asks Kubernetes for anything")
    for name in ("hostNetwork", "hostPID", "hostIPC"):
        if spec.get(name):
            yield Problem(f"{path}.{name}", "lets the pod into what belongs to its machine")
    yield from _user(f"{path}.securityContext", spec.get("securityContext", {}), needed=True)
    volumes = {one.get("name") for one in spec.get("volumes", ())}
    volumes |= claims
    for index, volume in enumerate(spec.get("volumes", ())):
        if "hostPath" in volume:
            yield Problem(f"{path}.volumes[{index}].hostPath", "lets the pod into what belongs to its machine")
        if len(volume) < 2 or volume.get("secret", {"secretName": "-"}).get("secretName", "") == "":
            yield Problem(f"{path}.volumes[{index}]", "says nothing of what it holds, and would be empty")
    for group in ("initContainers", "containers"):
        for index, container in enumerate(spec.get(group, ())):
            where = f"{path}.{group}[{index}]"
            yield from _container(where, container, volumes)
            if not container.get("securityContext", {}).get(
                "runAsUser", spec.get("securityContext", {}).get("runAsUser")
            ):
                yield Problem(f"{where}.securityContext.runAsUser", "must be a number that is not root's")
    if pod.container:
        labels = pod.template.get("metadata", {}).get("labels", {})
        for label in (CLUSTER_LABEL, NODE_LABEL):
            if not labels.get(label):
                yield Problem(f"{pod.path}.metadata.labels.{label}", "is missing: network policies know pods by it")
        yield from _ray_container(path, spec, pod.container)


def _ray_container(path: str, spec: Mapping[str, Any], name: str) -> Iterator[Problem]:
    """The first container is the one that KubeRay starts Ray in."""
    containers = spec.get("containers", ())
    if not containers or containers[0].get("name") != name:
        yield Problem(f"{path}.containers[0].name", f"must be {name}")
        return
    if name == "ray-job-submitter":
        return
    if spec.get("terminationGracePeriodSeconds", 0) < _LEAST_GRACE_S:
        why = f"must be {_LEAST_GRACE_S} or more: what runs there has to save"
        yield Problem(f"{path}.terminationGracePeriodSeconds", why)
    if "preStop" not in containers[0].get("lifecycle", {}):
        yield Problem(f"{path}.containers[0].lifecycle.preStop", "is missing: work would end without being asked to")
    elif not _HANDLERS & containers[0]["lifecycle"]["preStop"].keys():
        yield Problem(f"{path}.containers[0].lifecycle.preStop", "does nothing")
    yield from _certificate(path, spec)
    mounted = {one["mountPath"] for one in containers[0].get("volumeMounts", ())}
    for folder in sorted(_RAY_WRITES - mounted):
        yield Problem(f"{path}.containers[0].volumeMounts", f"nothing is mounted at {folder}, where Ray writes")


def _certificate(path: str, spec: Mapping[str, Any]) -> Iterator[Problem]:
    """What is empty at first is filled before Ray reads it."""
    ray = spec["containers"][0]
    file = next((one.get("value", "") for one in ray.get("env", ()) if one["name"] == "RAY_TLS_SERVER_CERT"), "")
    folders = {one["mountPath"]: one["name"] for one in ray.get("volumeMounts", ())}
    name = folders.get(file.rpartition("/")[0])
    empty = any(one.get("name") == name and "emptyDir" in one for one in spec.get("volumes", ()))
    makers = [mount["name"] for one in spec.get("initContainers", ()) for mount in one.get("volumeMounts", ())]
    if empty and name not in makers:
        yield Problem(f"{path}.initContainers", "none makes the certificate that Ray is to use")


def _container(path: str, container: Mapping[str, Any], volumes: set[Any]) -> Iterator[Problem]:
    if not is_pinned(container.get("image")):
        yield Problem(f"{path}.image", "must have a digest, or a tag that is not latest")
    yield from find_container_problems(path, container, volumes)
    for name in ("livenessProbe", "readinessProbe", "startupProbe"):
        if name in container and not _HANDLERS & container[name].keys():
            yield Problem(f"{path}.{name}", f"asks nothing; give one of {', '.join(sorted(_HANDLERS))}")


def find_container_problems(path: str, container: Mapping[str, Any], volumes: Set[Any]) -> Iterator[Problem]:
    """What holds for Ray's autoscaler too, of which a manifest gives a part of a container."""
    yield from _hardened(f"{path}.securityContext", container.get("securityContext", {}))
    yield from _resources(f"{path}.resources", container.get("resources", {}))
    mounts = container.get("volumeMounts", ())
    yield from _environment(path, container, [one["mountPath"] for one in mounts])
    seen: set[str] = set()
    for index, mount in enumerate(mounts):
        if mount["name"] not in volumes:
            yield Problem(f"{path}.volumeMounts[{index}].name", f"there is no volume {mount['name']}")
        if mount["mountPath"] in seen:
            yield Problem(f"{path}.volumeMounts[{index}].mountPath", "something else is mounted there")
        seen.add(mount["mountPath"])


def _user(path: str, security: Mapping[str, Any], *, needed: bool) -> Iterator[Problem]:
    """Not root, and only the system calls that containers need."""
    if security.get("runAsNonRoot") is not True and (needed or "runAsNonRoot" in security):
        yield Problem(f"{path}.runAsNonRoot", "must be true")
    for name in ("runAsUser", "runAsGroup", "fsGroup"):
        if security.get(name) == 0:
            yield Problem(f"{path}.{name}", "must not be root")
    if needed and security.get("seccompProfile", {}).get("type") != "RuntimeDefault":
        yield Problem(f"{path}.seccompProfile.type", "must be RuntimeDefault")


def _hardened(path: str, security: Mapping[str, Any]) -> Iterator[Problem]:
    yield from _user(path, security, needed=True)
    for name, wanted in (("allowPrivilegeEscalation", False), ("readOnlyRootFilesystem", True)):
        if security.get(name) is not wanted:
            yield Problem(f"{path}.{name}", f"must be {str(wanted).lower()}")
    if security.get("privileged"):
        yield Problem(f"{path}.privileged", "must not be")
    capabilities = security.get("capabilities", {})
    if capabilities.get("drop") != ["ALL"]:
        yield Problem(f"{path}.capabilities.drop", "must be ALL")
    if capabilities.get("add"):
        yield Problem(f"{path}.capabilities.add", "none is needed")


def _resources(path: str, resources: Mapping[str, Any]) -> Iterator[Problem]:
    """Ray counts with the limits, so they must be there for it, and requested."""
    limits, requests = resources.get("limits", {}), resources.get("requests", {})
    for name in ("cpu", "memory"):
        if name not in limits:
            yield Problem(f"{path}.limits.{name}", "is missing: Ray would count with the whole machine")
    for name in sorted({*limits, *requests}):
        if str(limits.get(name)) != str(requests.get(name)):
            yield Problem(f"{path}.limits.{name}", f"must be the same as requests.{name}")


def _environment(path: str, container: Mapping[str, Any], mounted: Sequence[str]) -> Iterator[Problem]:
    variables = container.get("env", ())
    for index, one in enumerate(variables):
        yield from _variable(f"{path}.env[{index}]", one)
    for index, source in enumerate(container.get("envFrom", ())):
        if not any(source.get(kind, {}).get("name") for kind in ("secretRef", "configMapRef")):
            yield Problem(f"{path}.envFrom[{index}]", "names neither a Secret nor a ConfigMap")
    given = {one["name"]: one.get("value", "") for one in variables}
    if "RAY_USE_TLS" not in given:
        return
    for name in _TLS:
        if not given.get(name):
            yield Problem(f"{path}.env", f"{name} is missing, without which Ray does not start with TLS")
        elif "/" in given[name] and not any(given[name].startswith(f"{folder}/") for folder in mounted):
            yield Problem(f"{path}.env", f"nothing is mounted where {name} is")


def _variable(path: str, one: Mapping[str, Any]) -> Iterator[Problem]:
    name, value = one["name"], one.get("value", "")
    if value and (names_secret(name, value) or mask_secrets(value) != value):
        yield Problem(f"{path}.value", f"{name} is a secret written out; refer to it by valueFrom.secretKeyRef")
    if name == "RAY_AUTH_MODE" and value != "token":
        yield Problem(f"{path}.value", "must be token: anybody who reaches Ray could run code")
    source = one.get("valueFrom", {})
    if ("value" in one) == bool(source):
        yield Problem(path, f"{name} must have either a value or a source of one")
    for kind in ("secretKeyRef", "configMapKeyRef"):
        if kind in source and not source[kind].get("name"):
            yield Problem(f"{path}.valueFrom.{kind}.name", "is missing")
