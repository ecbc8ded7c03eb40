"""What stands around a Ray cluster on Kubernetes: accounts, the network, evictions, and a Redis if one is asked for."""

from __future__ import annotations

from typing import Any

from squadron.cluster.rendering.pods import (
    CLUSTER_LABEL,
    Manifest,
    container_security,
    labels,
    pod_security,
    resources,
)
from squadron.cluster.rendering.spec import ClusterSpec, Peer, Redis

REDIS_LABEL, _REDIS_PORT, _REDIS_USER = "squadron-redis", 6379, 999
_DASHBOARD_PORT = 8265
# The password is read from the environment by the shell and goes to the server by its standard input: an argument could
# be read in `ps`. What a new head reads must not be a second old: each change is on disk before it is answered.
_REDIS_SCRIPT = """\
exec valkey-server - <<END
requirepass "$REDIS_PASSWORD"
dir /data
save ""
appendonly yes
appendfsync always
maxmemory-policy noeviction
END
"""


def meta(spec: ClusterSpec, name: str) -> Manifest:
    """Name, namespace and labels of a manifest."""
    return {"name": name, "namespace": spec.namespace, "labels": {CLUSTER_LABEL: spec.name}}


def redis_address(spec: ClusterSpec) -> str:
    """Where Redis answers: the one that is given, or the one that the manifests bring."""
    assert spec.redis is not None
    return spec.redis.address or f"{spec.name}-redis.{spec.namespace}.svc.{spec.cluster_domain}:{_REDIS_PORT}"


def accounts(spec: ClusterSpec) -> list[Manifest]:
    """An account for the head, whose role KubeRay writes for the autoscaler, and one without rights for workers."""
    return [_object("v1", "ServiceAccount", spec, node) | {"automountServiceAccountToken": False} for node in _NODES]


def network_policies(spec: ClusterSpec) -> list[Manifest]:
    """Who may connect to which pods; what is not named here may not."""
    own = {"podSelector": {"matchLabels": {CLUSTER_LABEL: spec.name}}}
    policies = [
        _policy(spec, "nodes", {CLUSTER_LABEL: spec.name}, [{"from": [own]}]),
        _policy(spec, "dashboard", labels(spec, "head"), _from(spec.dashboard_from, _DASHBOARD_PORT)),
    ]
    if spec.service:
        clients = _from(spec.service.clients, spec.service.port)
        anybody = [{"from": [{"podSelector": {}}], "ports": _ports(spec.service.port)}]
        policies.append(_policy(spec, "serve", labels(spec, "worker"), clients or anybody))
    if spec.redis and not spec.redis.address:
        head = [{"from": [{"podSelector": {"matchLabels": labels(spec, "head")}}], "ports": _ports(_REDIS_PORT)}]
        policies.append(_policy(spec, "redis", {REDIS_LABEL: spec.name}, head))
    return policies


def disruption_budgets(spec: ClusterSpec) -> list[Manifest]:
    """What is not evicted when a machine is drained, until somebody deletes it: the head, which holds the drivers of
    runs, and one worker that serves. A worker of a run is: its task is done again. A number of pods that may be missing
    cannot be given, since Kubernetes does not know how many KubeRay wants."""
    nodes = ["head", *(["worker"] if spec.service else [])]
    return [
        _object("policy/v1", "PodDisruptionBudget", spec, node)
        | {"spec": {"minAvailable": 1, "selector": {"matchLabels": labels(spec, node)}}}
        for node in nodes
    ]


def redis(spec: ClusterSpec) -> list[Manifest]:
    """A Redis with a disk of its own: its service and its one pod. Empty if there is to be none, or another's."""
    if spec.redis is None or spec.redis.address:
        return []
    selector = {REDIS_LABEL: spec.name}
    port = {"name": "redis", "port": _REDIS_PORT, "targetPort": _REDIS_PORT}
    service = _object("v1", "Service", spec, "redis") | {
        "spec": {"type": "ClusterIP", "selector": selector, "ports": [port]}
    }
    claim = {
        "metadata": {"name": "data"},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": f"{spec.redis.storage_gb}Gi"}},
        }
        | ({"storageClassName": spec.redis.storage_class} if spec.redis.storage_class else {}),
    }
    stateful = _object("apps/v1", "StatefulSet", spec, "redis") | {
        "spec": {
            "replicas": 1,
            "serviceName": f"{spec.name}-redis",
            "selector": {"matchLabels": selector},
            "template": {"metadata": {"labels": selector}, "spec": _redis_pod(spec, spec.redis)},
            "volumeClaimTemplates": [claim],
        }
    }
    return [service, stateful]


def _redis_pod(spec: ClusterSpec, redis: Redis) -> Manifest:
    answers = {"tcpSocket": {"port": _REDIS_PORT}, "periodSeconds": 10}
    container = {
        "name": "redis",
        "image": redis.image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["/bin/sh", "-c", _REDIS_SCRIPT],
        "env": [{"name": "REDIS_PASSWORD", "valueFrom": {"secretKeyRef": redis.password.model_dump()}}],
        "ports": [{"name": "redis", "containerPort": _REDIS_PORT}],
        "resources": resources(0.5, 1),
        "securityContext": container_security() | {"runAsUser": _REDIS_USER, "runAsGroup": _REDIS_USER},
        "livenessProbe": answers,
        "readinessProbe": answers,
        "volumeMounts": [{"name": "data", "mountPath": "/data"}],
    }
    return {
        "serviceAccountName": f"{spec.name}-worker",
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": 30,
        "securityContext": pod_security(_REDIS_USER),
        "containers": [container],
    }


_NODES = ("head", "worker")


def _object(version: str, kind: str, spec: ClusterSpec, end: str) -> Manifest:
    return {"apiVersion": version, "kind": kind, "metadata": meta(spec, f"{spec.name}-{end}")}


def _policy(spec: ClusterSpec, end: str, pods: dict[str, str], ingress: list[Manifest]) -> Manifest:
    described = {"podSelector": {"matchLabels": pods}, "policyTypes": ["Ingress"], "ingress": ingress}
    return _object("networking.k8s.io/v1", "NetworkPolicy", spec, end) | {"spec": described}


def _from(peers: tuple[Peer, ...], port: int) -> list[Manifest]:
    """One rule that lets these peers in; none if there is nobody."""
    known: list[dict[str, Any]] = [
        {
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": peer.namespace}},
            "podSelector": {"matchLabels": dict(peer.labels)},
        }
        for peer in peers
    ]
    return [{"from": known, "ports": _ports(port)}] if known else []


def _ports(port: int) -> list[Manifest]:
    return [{"protocol": "TCP", "port": port}]
