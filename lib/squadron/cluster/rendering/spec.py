"""What a cluster is to be: one file, from which manifests for Kubernetes and files for `ray up` are rendered.

Secrets stand in it by their names alone. How many machines there are, and what each has, is said by the profile.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, field_validator, model_validator

from squadron.cluster.rendering.clouds import Aws, CloudSpec, Gcp
from squadron.core.config import Config
from squadron.core.masking import mask_secrets, names_secret
from squadron.core.profile import PROFILES, Profile, find_profile

Label = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")]
"""A name as DNS takes it (RFC 1123)."""
Name = Annotated[str, Field(pattern=r"^[a-z]([a-z0-9-]{0,22}[a-z0-9])?$")]
"""Of a cluster: KubeRay adds to it, and cuts what is longer than 50 characters off at the front."""
SecretName = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$")]
Variable = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
_IMAGE = re.compile(r"[a-z0-9][\w./:-]*?(@sha256:[0-9a-f]{64}|:(?P<tag>[A-Za-z0-9_][\w.-]{0,127}))")


def is_pinned(image: object) -> bool:
    """Whether an image has a digest, or a tag that is not `latest`: else a node that starts tomorrow may run other
    code."""
    found = _IMAGE.fullmatch(image) if isinstance(image, str) else None
    return found is not None and found["tag"] != "latest"


def _pinned(image: str) -> str:
    if not is_pinned(image):
        raise ValueError("give the image's digest, or a tag that is not latest")
    return image


Image = Annotated[str, AfterValidator(_pinned)]


class Secret(Config):
    """A key of a Secret of Kubernetes; what it holds stands nowhere in these files."""

    name: SecretName
    key: str = Field(pattern=r"^[A-Za-z0-9._-]+$")


class Toleration(Config):
    """A taint of nodes that pods of a group may come to, in the terms of Kubernetes."""

    key: str = Field(min_length=1)
    operator: Literal["Exists", "Equal"] = "Exists"
    value: str | None = None
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] = "NoSchedule"

    @model_validator(mode="after")
    def _value_where_equal(self) -> Toleration:
        if (self.value is not None) != (self.operator == "Equal"):
            raise ValueError("operator Equal needs a value, and Exists takes none")
        return self


class Peer(Config):
    """Pods that may connect: those with these labels, in a namespace."""

    namespace: Label
    labels: dict[str, str] = Field(min_length=1)


class HeadNode(Config):
    """The node that drivers and Ray's own services run on; no worker comes to it."""

    cpus: int = Field(4, ge=1)
    memory_gb: int = Field(16, ge=4)
    node_selector: dict[str, str] = {}
    tolerations: tuple[Toleration, ...] = ()


class NodeGroup(Config):
    """Machines of one kind, and between how many of them there are."""

    min: int = Field(0, ge=0)
    max: int | None = Field(None, ge=1, description="None: as many as the profile has")
    node_selector: dict[str, str] = {}
    tolerations: tuple[Toleration, ...] = ()


class CpuGroup(NodeGroup):
    """Machines without cards: for simulators, data and services."""

    cpus: int = Field(14, ge=1, description="of one machine")
    memory_gb: int = Field(56, ge=1, description="of one machine")
    max: int | None = Field(4, ge=1)


class Storage(Config):
    """Where runs are: a claim that every pod mounts, such as NFS, or a URL that every pod reads and writes."""

    claim: SecretName | None = Field(None, description="a PersistentVolumeClaim that several nodes may write to")
    folder: str = Field("/runs", pattern=r"^/[\w./-]*[\w-]$", description="where the claim is mounted")
    url: str | None = Field(None, pattern=r"^[a-z0-9]+://\S+[^/\s]$", description="such as s3://bucket/runs")
    secret: SecretName | None = Field(None, description="a Secret whose keys are the variables that the URL needs")

    @model_validator(mode="after")
    def _one_of_two(self) -> Storage:
        if (self.claim is None) == (self.url is None):
            raise ValueError("give either claim or url")
        if self.secret is not None and self.url is None:
            raise ValueError("secret is for a url")
        if self.url is not None and mask_secrets(self.url) != self.url:
            raise ValueError("the URL holds a secret; give it by the Secret that `secret` names")
        return self

    @property
    def root(self) -> str:
        """The folder or URL that holds the runs."""
        return self.url or self.folder


class Redis(Config):
    """Where Ray keeps what a new head needs to know of the cluster when the old one is gone."""

    address: str | None = Field(
        None, pattern=r"^[\w.-]+:\d{1,5}$", description="host:port; None: the manifests bring one"
    )
    password: Secret
    image: Image = "valkey/valkey:8.0.2"
    storage_gb: int = Field(4, ge=1)
    storage_class: Label | None = Field(None, description="None: the default of the Kubernetes cluster")


class Tls(Config):
    """TLS between all nodes, with certificates that each node makes by the key of an authority."""

    authority: SecretName = Field("squadron-authority", description="a Secret with ca.crt and ca.key")


class JobSpec(Config):
    """A run as a RayJob: the cluster comes for it and goes with it."""

    words: tuple[str, ...] = Field(min_length=2, description="of squadron: run flame paper …")
    retries: int = Field(2, ge=0, description="with a new cluster; the run resumes in its folder")
    keep_s: int = Field(600, ge=0, description="that the cluster stays after the run, to look at it")

    @field_validator("words")
    @classmethod
    def _are_of_a_job(cls, words: tuple[str, ...]) -> tuple[str, ...]:
        if words[0] not in ("run", "sweep"):
            raise ValueError("begin with run or sweep, which resume when they are given again")
        if any(mask_secrets(word) != word or names_secret(*_parts(word)) for word in words):
            raise ValueError("a secret in a word could be read by who sees the job; give it by `secrets`")
        return words


class ServiceSpec(Config):
    """Finished runs, served by a RayService, which replaces a cluster without a lost request."""

    runs: tuple[str, ...] = Field(min_length=1, description="below the storage, or whole paths and URLs")
    settings: dict[str, object] = Field({}, description="of squadron serve, such as replicas or gpus")
    api_keys: Secret = Field(description="what clients may present, as SQUADRON_API_KEYS has it")
    port: int = Field(8000, ge=1024, le=65535)
    clients: tuple[Peer, ...] = Field((), description="who may send requests; none: every pod of the namespace")


class Machine(Config):
    """What is asked for of one machine of a group, which Ray then counts with."""

    cpus: int = Field(ge=1)
    memory_gb: float = Field(gt=0, description="GiB")
    cards: int = 0


class ClusterSpec(Config):
    """A cluster, a run on one, or a server on one."""

    name: Name
    namespace: Label = "squadron"
    image: Image
    profile: str = Field("auto", description="its machines are the nodes")
    head: HeadNode = HeadNode()
    machines: NodeGroup = NodeGroup()
    cpu_group: CpuGroup | None = None
    idle_timeout_s: int = Field(300, ge=0, description="after which an idle machine is given back")
    grace_s: int = Field(120, ge=30, le=3600, description="that a node is given to end, and runs on it to save")
    storage: Storage
    redis: Redis | None = None
    tls: Tls | None = Field(Tls(), description="null: none between nodes, where the network encrypts already")
    token: SecretName = Field("squadron-token", description="a Secret whose key auth_token every caller needs")
    env: dict[Variable, str] = Field({}, description="variables that are no secrets")
    secrets: dict[Variable, Secret] = {}
    env_from: tuple[SecretName, ...] = Field((), description="Secrets all of whose keys become variables")
    dashboard_from: tuple[Peer, ...] = Field(
        (Peer(namespace="kuberay-operator", labels={"app.kubernetes.io/name": "kuberay-operator"}),),
        description="who reaches Ray's dashboard: it runs jobs",
    )
    cluster_domain: str = Field("cluster.local", pattern=r"^[a-z0-9.-]+$")
    job: JobSpec | None = None
    service: ServiceSpec | None = None
    clouds: tuple[CloudSpec, ...] = ()

    @field_validator("profile")
    @classmethod
    def _is_known(cls, name: str) -> str:
        if name not in PROFILES:
            raise ValueError(f"no such profile; known: {', '.join(sorted(PROFILES))}")
        return name

    @field_validator("env")
    @classmethod
    def _holds_no_secret(cls, env: dict[str, str]) -> dict[str, str]:
        for name, value in env.items():
            if names_secret(name, value) or mask_secrets(value) != value:
                raise ValueError(f"{name} sounds like a secret; give the name of one under `secrets`")
        return env

    @model_validator(mode="after")
    def _fits_together(self) -> ClusterSpec:
        if self.job and self.service:
            raise ValueError("give job or service, or neither")
        if not self.groups:
            raise ValueError(f"no machines: profile {self.profile} names none, and there is no cpu_group")
        if "machines" in self.groups and any(
            isinstance(one, Aws | Gcp) and not one.machine_type for one in self.clouds
        ):
            raise ValueError(f"clouds: machine_type must say which machines of the cloud are those of {self.profile}")
        twice = {*self.env} & {*self.secrets}
        if twice:
            raise ValueError(f"{min(twice)} stands in env and in secrets")
        for name, (group, _) in self.groups.items():
            if group.min > self.most(name):
                raise ValueError(f"{name}: min is above max")
        return self

    @property
    def hardware(self) -> Profile:
        """The profile."""
        return find_profile(self.profile)

    @property
    def groups(self) -> dict[str, tuple[NodeGroup, Machine]]:
        """The groups of workers by their names, each with what a machine of it offers."""
        found: dict[str, tuple[NodeGroup, Machine]] = {}
        hardware = self.hardware
        if hardware.cpus is not None and hardware.memory_gb is not None:
            machine = Machine(cpus=hardware.cpus, memory_gb=hardware.memory_gb, cards=hardware.cards or 0)
            found["machines"] = (self.machines, machine)
        if self.cpu_group is not None:
            group = self.cpu_group
            found["cpu"] = (group, Machine(cpus=group.cpus, memory_gb=group.memory_gb))
        return found

    def most(self, name: str) -> int:
        """How many machines a group has at most."""
        return self.groups[name][0].max or self.hardware.nodes


def _parts(word: str) -> tuple[str, str]:
    name, _, value = word.partition("=")
    return name, value
