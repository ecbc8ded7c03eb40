"""RayCluster, RayJob and RayService, as KubeRay 1.7 defines them."""

from __future__ import annotations

import shlex
from typing import Any

from squadron.cluster.rendering.kubernetes import meta, redis_address
from squadron.cluster.rendering.pods import (
    Manifest,
    autoscaler_options,
    head_template,
    submitter_template,
    worker_template,
)
from squadron.cluster.rendering.spec import ClusterSpec, JobSpec, ServiceSpec
from squadron.core.errors import ConfigError, suggest
from squadron.core.registry import find_config, list_jobs

RAY_VERSION = "2.60.0"
"""Of the images: `constraints/*.txt` pin it. KubeRay asks for it where there are tokens."""


def ray_manifest(spec: ClusterSpec) -> Manifest:
    """The one manifest that KubeRay acts on. Raises ConfigError for settings that `squadron serve` does not take."""
    if spec.job:
        return _manifest(spec, "RayJob", _job(spec, spec.job))
    if spec.service:
        return _manifest(spec, "RayService", _service(spec, spec.service))
    return _manifest(spec, "RayCluster", cluster(spec))


def cluster(spec: ClusterSpec) -> Manifest:
    """The head, and each group of workers between its smallest and largest number."""
    described: Manifest = {
        "rayVersion": RAY_VERSION,
        "authOptions": {"mode": "token", "secretName": spec.token},
        "enableInTreeAutoscaling": True,
        "autoscalerOptions": autoscaler_options(spec),
    }
    if spec.redis:
        described["gcsFaultToleranceOptions"] = {
            "redisAddress": redis_address(spec),
            "redisPassword": {"valueFrom": {"secretKeyRef": spec.redis.password.model_dump()}},
        }
    # No worker comes to the head: what fills its memory would end every run.
    head = {"num-cpus": "0", "dashboard-host": "0.0.0.0"}
    described["headGroupSpec"] = {
        "serviceType": "ClusterIP",
        "rayStartParams": head,
        "template": head_template(spec),
    }
    described["workerGroupSpecs"] = [
        {
            "groupName": name,
            "replicas": group.min,
            "minReplicas": group.min,
            "maxReplicas": spec.most(name),
            "rayStartParams": {},
            "template": worker_template(spec, group, machine),
        }
        for name, (group, machine) in spec.groups.items()
    ]
    return described


def entrypoint(spec: ClusterSpec, job: JobSpec) -> str:
    """The command of a job, with its run folder in the storage and the profile, unless the words say others.

    Raises ConfigError for a job or a configuration that there is not. A file of one's own must be in the image.
    """
    _check_words(job)
    words = ["squadron", *job.words]
    given = {word.partition("=")[0] for word in job.words}
    for option, value in (("--run", f"{spec.storage.root}/{spec.name}"), ("--profile", spec.profile)):
        if option not in given:
            words += [option, value]
    return shlex.join(words)


def _check_words(job: JobSpec) -> None:
    name, *others = job.words[1:]
    if name.endswith(".py"):
        return
    if name not in (known := list_jobs()):
        raise ConfigError(f"no job called {name!r}", where="job.words", fix=suggest(name, known))
    if others and "=" not in others[0] and not others[0].startswith("-") and not others[0].endswith(".yaml"):
        find_config(name, others[0])


def _job(spec: ClusterSpec, job: JobSpec) -> Manifest:
    return {
        "entrypoint": entrypoint(spec, job),
        "submissionMode": "K8sJobMode",
        "submitterConfig": {"backoffLimit": 2},
        "submitterPodTemplate": submitter_template(spec),
        "backoffLimit": job.retries,
        "shutdownAfterJobFinishes": True,
        "ttlSecondsAfterFinished": job.keep_s,
        "rayClusterSpec": cluster(spec),
    }


def _service(spec: ClusterSpec, service: ServiceSpec) -> Manifest:
    return {
        "upgradeStrategy": {"type": "NewCluster"},
        # Requests go to workers: the head has none of what is served.
        "excludeHeadPodFromServeSvc": True,
        "serveConfigV2": serve_config(spec, service),
        "rayClusterConfig": cluster(spec),
    }


def serve_config(spec: ClusterSpec, service: ServiceSpec) -> str:
    """What Ray Serve runs: the file that the server itself writes for `serve deploy`.

    Raises ConfigError for settings that `squadron serve` does not take.
    """
    from squadron.core.config import from_values
    from squadron.core.folder import Folder
    from squadron.serve.deploy import config_file
    from squadron.serve.spec import ServeSpec

    own: dict[str, Any] = {"host": "0.0.0.0", "port": service.port}
    settings = from_values(ServeSpec, own | service.settings, {}, "service.settings")
    runs = [run if "://" in run or run.startswith("/") else f"{spec.storage.root}/{run}" for run in service.runs]
    return config_file([Folder(run) for run in runs], settings)


def _manifest(spec: ClusterSpec, kind: str, described: Manifest) -> Manifest:
    return {"apiVersion": "ray.io/v1", "kind": kind, "metadata": meta(spec, spec.name), "spec": described}
