"""Pods of a cluster: what every one of them has, whatever runs in it.

No process is root, no file system of an image can be written to, no capability is kept. What Ray writes goes into
volumes that are empty at first and end with the pod.
"""

from __future__ import annotations

import math
from typing import Any

from squadron.cluster.certificates import environment
from squadron.cluster.rendering.spec import ClusterSpec, HeadNode, Machine, NodeGroup

Manifest = dict[str, Any]
USER = 1000
"""The user of our images (`cluster/images`)."""
TLS_FOLDER, _AUTHORITY_FOLDER, _HOME = "/etc/squadron/tls", "/etc/squadron/authority", "/home/squadron"
CLUSTER_LABEL, NODE_LABEL = "squadron-cluster", "squadron-node"
"""By these labels of ours network policies know the pods: KubeRay's name of a cluster of a job has a random end."""
GPU = "nvidia.com/gpu"
_OBJECT_STORE = 0.35  # of a node's memory: Ray's own share for objects is 30 %
_AUTOSCALER_ACCESS = "kubernetes-access"


def labels(spec: ClusterSpec, node: str) -> dict[str, str]:
    """The labels of a pod that is a head, a worker or a submitter."""
    return {CLUSTER_LABEL: spec.name, NODE_LABEL: node}


def container_security() -> Manifest:
    """What the restricted Pod Security Standard asks for, and a file system that is read alone
    (https://kubernetes.io/docs/concepts/security/pod-security-standards/)."""
    return {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
        "runAsNonRoot": True,
        "runAsUser": USER,
        "runAsGroup": USER,
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def pod_security(user: int = USER) -> Manifest:
    """The same for the pod; volumes belong to its group."""
    return {
        "runAsNonRoot": True,
        "runAsUser": user,
        "runAsGroup": user,
        "fsGroup": user,
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def resources(cpus: float, memory_gb: float, cards: int = 0) -> Manifest:
    """Requests and limits, which are the same: Ray counts with all of it, and nobody else gets any of it."""
    memory = f"{memory_gb:g}Gi" if memory_gb >= 1 else f"{math.ceil(memory_gb * 1024)}Mi"
    amounts = {"cpu": f"{cpus:g}", "memory": memory} | ({GPU: str(cards)} if cards else {})
    return {"requests": amounts, "limits": dict(amounts)}


def head_template(spec: ClusterSpec) -> Manifest:
    """The pod of the head. Its container has no access to Kubernetes; the autoscaler beside it has."""
    head = spec.head
    container = _ray_container(spec, "ray-head", Machine(cpus=head.cpus, memory_gb=head.memory_gb))
    container["ports"] = [{"name": "gcs", "containerPort": 6379}, {"name": "dashboard", "containerPort": 8265}]
    if spec.service:
        container["ports"].append({"name": "serve", "containerPort": spec.service.port})
    # Runs are asked to save before Ray ends under them.
    leave = ["python", "-m", "squadron.cluster.leave", str(spec.grace_s - 15)]
    container["lifecycle"] = {"preStop": {"exec": {"command": leave}}}
    template = _template(spec, "head", container, head, "$(RAY_CLUSTER_NAME)-head-svc")
    template["spec"]["volumes"].append(_kubernetes_access())
    return template


def worker_template(spec: ClusterSpec, group: NodeGroup, machine: Machine) -> Manifest:
    """The pod of a worker."""
    container = _ray_container(spec, "ray-worker", machine)
    command = ["ray", "stop"]
    if spec.service:
        port = spec.service.port
        container["ports"] = [{"name": "serve", "containerPort": port}]
        # KubeRay asks Ray Serve itself, by a path that HAProxy in front of it does not let through.
        ready = {"httpGet": {"path": "/ready", "port": port}, "periodSeconds": 5, "timeoutSeconds": 5}
        container["readinessProbe"] = ready | {"failureThreshold": 3}
        command = ["/bin/sh", "-c", "sleep 10; ray stop"]  # until no new request comes here
    container["lifecycle"] = {"preStop": {"exec": {"command": command}}}
    return _template(spec, "worker", container, group)


def submitter_template(spec: ClusterSpec) -> Manifest:
    """The pod that hands a job in and prints its log."""
    container = {
        "name": "ray-job-submitter",
        "image": spec.image,
        "resources": resources(0.5, 1),
        "securityContext": container_security(),
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}, {"name": "home", "mountPath": _HOME}],
    }
    return {
        "metadata": {"labels": labels(spec, "submitter")},
        "spec": {
            "serviceAccountName": f"{spec.name}-worker",
            "automountServiceAccountToken": False,
            "restartPolicy": "Never",
            "securityContext": pod_security(),
            "containers": [container],
            "volumes": [{"name": "tmp", "emptyDir": {}}, {"name": "home", "emptyDir": {}}],
        },
    }


def autoscaler_options(spec: ClusterSpec) -> Manifest:
    """Ray's autoscaler, which asks Kubernetes for pods: a container beside the head, with the head's image."""
    mounts = [
        {"name": "tmp", "mountPath": "/tmp"},
        {"name": "home", "mountPath": _HOME},
        {"name": _AUTOSCALER_ACCESS, "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount", "readOnly": True},
    ]
    options: Manifest = {
        "version": "v2",
        "idleTimeoutSeconds": spec.idle_timeout_s,
        "upscalingMode": "Default",
        "imagePullPolicy": "IfNotPresent",
        "resources": resources(0.5, 1),
        "securityContext": container_security(),
        "volumeMounts": mounts,
    }
    if spec.tls:
        options["env"] = _plain(environment(TLS_FOLDER))
        mounts.append({"name": "tls", "mountPath": TLS_FOLDER, "readOnly": True})
    return options


def _template(
    spec: ClusterSpec, node: str, container: Manifest, place: HeadNode | NodeGroup, service: str = ""
) -> Manifest:
    volumes: list[Manifest] = [
        {"name": "tmp", "emptyDir": {}},
        {"name": "home", "emptyDir": {}},
        {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": _shared_memory(container)}},
    ]
    pod: Manifest = {
        "serviceAccountName": f"{spec.name}-{node}",
        "automountServiceAccountToken": False,
        "restartPolicy": "Never",  # KubeRay makes a new pod, which autoscaler v2 counts on
        "terminationGracePeriodSeconds": spec.grace_s,
        "securityContext": pod_security(),
    }
    if place.node_selector:
        pod["nodeSelector"] = dict(place.node_selector)
    if place.tolerations:
        pod["tolerations"] = [one.model_dump(exclude_none=True) for one in place.tolerations]
    if spec.tls:
        pod["initContainers"] = [_certificate_maker(spec, service)]
        volumes += [
            {"name": "authority", "secret": {"secretName": spec.tls.authority, "defaultMode": 0o440}},
            {"name": "tls", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
        ]
    if spec.storage.claim:
        volumes.append({"name": "runs", "persistentVolumeClaim": {"claimName": spec.storage.claim}})
    pod |= {"containers": [container], "volumes": volumes}
    return {"metadata": {"labels": labels(spec, node)}, "spec": pod}


def _ray_container(spec: ClusterSpec, name: str, machine: Machine) -> Manifest:
    mounts: list[Manifest] = [
        {"name": "tmp", "mountPath": "/tmp"},
        {"name": "home", "mountPath": _HOME},
        {"name": "shm", "mountPath": "/dev/shm"},
    ]
    if spec.tls:
        mounts.append({"name": "tls", "mountPath": TLS_FOLDER, "readOnly": True})
    if spec.storage.claim:
        mounts.append({"name": "runs", "mountPath": spec.storage.folder})
    container: Manifest = {
        "name": name,
        "image": spec.image,
        "imagePullPolicy": "IfNotPresent",
        "env": _variables(spec),
        "resources": resources(machine.cpus, machine.memory_gb, machine.cards),
        "securityContext": container_security(),
        "volumeMounts": mounts,
    }
    secrets = [*spec.env_from, *([spec.storage.secret] if spec.storage.secret else [])]
    if secrets:
        container["envFrom"] = [{"secretRef": {"name": secret}} for secret in secrets]
    return container


def _variables(spec: ClusterSpec) -> list[Manifest]:
    """The token is not among them: KubeRay adds it, by `authOptions`."""
    settings = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_JOB_STOP_WAIT_TIME_S": str(spec.grace_s - 20)}
    if spec.tls:
        settings |= environment(TLS_FOLDER)
    secrets = dict(spec.secrets)
    if spec.service:
        secrets["SQUADRON_API_KEYS"] = spec.service.api_keys
    references = [
        {"name": name, "valueFrom": {"secretKeyRef": {"name": secret.name, "key": secret.key}}}
        for name, secret in secrets.items()
    ]
    return _plain(settings | spec.env) + references


def _certificate_maker(spec: ClusterSpec, service: str) -> Manifest:
    """The one container that sees the authority's key; it ends before Ray begins.

    By cert-manager and KubeRay's `tlsOptions` a certificate would be for a whole group and need a feature gate that is
    off by default (KubeRay 1.7); this works with every KubeRay that knows tokens.
    """
    env: list[Manifest] = [{"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}]
    names = ["$(POD_IP)"]
    if service:
        cluster = {"fieldRef": {"fieldPath": "metadata.labels['ray.io/cluster']"}}
        env.append({"name": "RAY_CLUSTER_NAME", "valueFrom": cluster})
        names += [service, f"{service}.{spec.namespace}", f"{service}.{spec.namespace}.svc.{spec.cluster_domain}"]
    words = ["node", "--authority", _AUTHORITY_FOLDER, "--out", TLS_FOLDER, *names]
    return {
        "name": "certificate",
        "image": spec.image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["python", "-m", "squadron.cluster.certificates", *words],
        "env": env,
        "resources": resources(0.5, 0.5),
        "securityContext": container_security(),
        "volumeMounts": [
            {"name": "authority", "mountPath": _AUTHORITY_FOLDER, "readOnly": True},
            {"name": "tls", "mountPath": TLS_FOLDER},
        ],
    }


def _kubernetes_access() -> Manifest:
    """A service account's token and what is needed to use it, for the autoscaler's container alone."""
    namespace = {"path": "namespace", "fieldRef": {"fieldPath": "metadata.namespace"}}
    return {
        "name": _AUTOSCALER_ACCESS,
        "projected": {
            "defaultMode": 0o440,
            "sources": [
                {"serviceAccountToken": {"path": "token", "expirationSeconds": 3600}},
                {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
                {"downwardAPI": {"items": [namespace]}},
            ],
        },
    }


def _shared_memory(container: Manifest) -> str:
    """The room for Ray's objects. It counts as memory of the container."""
    memory_gb = float(container["resources"]["limits"]["memory"].removesuffix("Gi"))
    return f"{math.ceil(memory_gb * _OBJECT_STORE)}Gi"


def _plain(settings: dict[str, str]) -> list[Manifest]:
    return [{"name": name, "value": value} for name, value in settings.items()]
