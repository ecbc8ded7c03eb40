"""The kinds of Kubernetes itself that stand around a cluster, as strict as we write them.

Kubernetes allows more. What is allowed here is what our manifests need, so that a misspelt field or a gap in a policy
is seen before anything is applied. Pods within are described by KubeRay's definitions, and checked by those.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from squadron.cluster.validation.definitions import Problem, join
from squadron.core.errors import suggest

DnsName = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$")]
LabelValue = Annotated[str, Field(pattern=r"^([A-Za-z0-9]([\w.-]{0,61}[A-Za-z0-9])?)?$")]
LabelKey = Annotated[str, Field(pattern=r"^([a-z0-9.-]{1,253}/)?[A-Za-z0-9]([\w.-]{0,61}[A-Za-z0-9])?$")]
Labels = Annotated[dict[LabelKey, LabelValue], Field(min_length=1)]
Port = Annotated[int, Field(ge=1, le=65535)]
Quantity = Annotated[str, Field(pattern=r"^[0-9]+(\.[0-9]+)?(Ki|Mi|Gi|Ti|Pi|k|M|G|T|P|m)?$")]


class Strict(BaseModel):
    """Fields by their names in Kubernetes; others are refused, and nothing is converted."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        alias_generator=to_camel,
        validate_by_name=False,
        validate_by_alias=True,
    )


class Metadata(Strict):
    """What every manifest says of itself."""

    name: DnsName
    namespace: Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")]
    labels: dict[LabelKey, LabelValue] = {}
    annotations: dict[str, str] = {}


class Selector(Strict):
    """Pods or namespaces by their labels; none of them: all."""

    match_labels: Labels | None = None


class PodSelector(Strict):
    """Pods by their labels; there is no such thing here as all."""

    match_labels: Labels


class PolicyPeer(Strict):
    """Who may connect."""

    pod_selector: Selector
    namespace_selector: PodSelector | None = None


class PolicyPort(Strict):
    """Where to."""

    protocol: Literal["TCP", "UDP"]
    port: Port


class IngressRule(Strict):
    """Who may connect, and where to; without ports, everywhere."""

    from_: list[PolicyPeer] = Field(min_length=1, alias="from")
    ports: list[PolicyPort] | None = Field(None, min_length=1)


class NetworkPolicySpec(Strict):
    """Of these pods, who may connect to them."""

    pod_selector: PodSelector
    policy_types: list[Literal["Ingress"]] = Field(min_length=1, max_length=1)
    ingress: list[IngressRule]


class BudgetSpec(Strict):
    """How many of these pods are to stay."""

    min_available: Annotated[int, Field(ge=1)]
    selector: PodSelector


class ServicePort(Strict):
    """A port of a service, and the one of its pods."""

    name: DnsName
    port: Port
    target_port: Port


class InnerService(Strict):
    """A service that only the cluster reaches."""

    type: Literal["ClusterIP"]
    selector: Labels
    ports: list[ServicePort] = Field(min_length=1)


class ClaimResources(Strict):
    """The size of a disk."""

    requests: dict[Literal["storage"], Quantity] = Field(min_length=1)


class ClaimSpec(Strict):
    """A disk."""

    access_modes: list[Literal["ReadWriteOnce", "ReadWriteMany"]] = Field(min_length=1)
    resources: ClaimResources
    storage_class_name: DnsName | None = None


class ClaimName(Strict):
    """What a claim is called."""

    name: DnsName


class ClaimTemplate(Strict):
    """A claim that each pod gets for itself."""

    metadata: ClaimName
    spec: ClaimSpec


class StatefulSpec(Strict):
    """Pods that keep their disks. `template` is a pod."""

    replicas: Annotated[int, Field(ge=1)]
    service_name: DnsName
    selector: PodSelector
    template: dict[str, Any]
    volume_claim_templates: list[ClaimTemplate] = []


class NetworkPolicy(Strict):
    """Who may connect to pods."""

    api_version: Literal["networking.k8s.io/v1"]
    kind: Literal["NetworkPolicy"]
    metadata: Metadata
    spec: NetworkPolicySpec


class PodDisruptionBudget(Strict):
    """Which pods are not evicted."""

    api_version: Literal["policy/v1"]
    kind: Literal["PodDisruptionBudget"]
    metadata: Metadata
    spec: BudgetSpec


class ServiceAccount(Strict):
    """As whom pods ask Kubernetes; ours do not by themselves."""

    api_version: Literal["v1"]
    kind: Literal["ServiceAccount"]
    metadata: Metadata
    automount_service_account_token: Literal[False]


class Service(Strict):
    """A name for pods."""

    api_version: Literal["v1"]
    kind: Literal["Service"]
    metadata: Metadata
    spec: InnerService


class StatefulSet(Strict):
    """Pods with disks of their own."""

    api_version: Literal["apps/v1"]
    kind: Literal["StatefulSet"]
    metadata: Metadata
    spec: StatefulSpec


KINDS: dict[str, type[Strict]] = {
    kind.__name__: kind for kind in (NetworkPolicy, PodDisruptionBudget, Service, ServiceAccount, StatefulSet)
}


def find_problems(value: Any, model: type[Strict], path: str = "") -> Iterator[Problem]:
    """Everything in a value that a model does not allow."""
    try:
        model.model_validate(value)
    except ValidationError as error:
        for one in error.errors(include_url=False):
            keys = [key for key in one["loc"] if key != "[key]"]
            yield Problem(join(path, *keys), _words(one, model))


def _words(error: Any, model: type[Strict]) -> str:
    match error["type"]:
        case "missing":
            return "is missing"
        case "extra_forbidden":
            if len(error["loc"]) > 1:
                return "there is no such field"
            known = [field.alias or name for name, field in model.model_fields.items()]
            return f"there is no such field; {suggest(str(error['loc'][-1]), known)}"
    return str(error["msg"])
