"""Files from a specification: manifests for Kubernetes, and a file of `ray up` for each cloud."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import yaml

from squadron.cluster.rendering.autoscaler import cloud_file
from squadron.cluster.rendering.kuberay import ray_manifest
from squadron.cluster.rendering.kubernetes import accounts, disruption_budgets, network_policies, redis
from squadron.cluster.rendering.pods import Manifest
from squadron.cluster.rendering.spec import ClusterSpec
from squadron.core.config import load_config

_TLS = (
    "Each pod makes its own certificate before Ray starts, by an authority's key that only the init container sees:\n"
    "a certificate of cert-manager would have to be for all pods of a group, whose addresses nobody knows beforehand."
)


def render(spec: ClusterSpec, source: str = "SPEC.yaml") -> dict[str, str]:
    """The files by their names. `source` is named at the top of each.

    Raises ConfigError for settings that what is to run does not take.
    """
    main = ray_manifest(spec)
    files = {
        f"{main['kind'].lower()}.yaml": _text([main], source, _TLS if spec.tls else ""),
        "accounts.yaml": _text(accounts(spec), source),
        "network.yaml": _text(network_policies(spec), source),
        "disruption.yaml": _text(disruption_budgets(spec), source),
    }
    if own := redis(spec):
        files["redis.yaml"] = _text(own, source)
    for cloud in spec.clouds:
        files[f"ray-up/{cloud.provider}.yaml"] = _text([cloud_file(spec, cloud)], source)
    return files


def render_file(path: Path) -> dict[str, str]:
    """The files of the specification at this path. Raises ConfigError naming every wrong key, with its line."""
    return render(load_config(ClusterSpec, path), path.name)


def _text(manifests: Sequence[Manifest], source: str, note: str = "") -> str:
    lines = [f"Rendered by `squadron cluster render {source}`: change that file, and render again."]
    lines += note.splitlines()
    head = "".join(f"# {line}\n" for line in lines)
    return head + yaml.dump_all(manifests, Dumper=_Dumper, sort_keys=False, width=120, allow_unicode=True)


class _Dumper(yaml.SafeDumper):
    """Writes each value where it stands, and texts of several lines as such."""

    def ignore_aliases(self, data: object) -> bool:
        return True


def _write_text(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    style = "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _write_text)
