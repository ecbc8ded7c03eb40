"""Python and packages: there at all, and the same on every node."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass

from squadron import __version__
from squadron.cluster.doctor.finding import Finding, failed, ok
from squadron.core.manifest import PACKAGES, installed_version

_OPTIONAL = {"transformers", "deepspeed", "vllm"}


@dataclass(frozen=True)
class Installation:
    """Versions on one machine; packages that are not installed have none."""

    python: str
    packages: Mapping[str, str | None]


def find_installation() -> Installation:
    """Of this process."""
    versions = {"squadron": __version__} | {name: installed_version(name) for name in PACKAGES}
    return Installation(sys.version.split()[0], versions)


def check_packages(found: Installation) -> Finding:
    """Whether all is there that jobs need."""
    missing = [name for name, version in found.packages.items() if not version and name not in _OPTIONAL]
    if found.packages.get("vllm") and missing == ["flwr"]:
        text = "all but flwr, which cannot live beside vLLM: federated jobs need an environment without the gpu extra"
        return ok("packages", text)
    if missing:
        return failed("packages", f"not installed: {', '.join(missing)}", f"pip install {' '.join(missing)}")
    told = ", ".join(f"{name} {version}" for name, version in found.packages.items() if version)
    return ok("packages", f"Python {found.python}, {told}")


def check_same_versions(driver: Installation, nodes: Mapping[str, Installation]) -> list[Finding]:
    """Whether nodes have the driver's versions: what a worker sends back is read by the driver, and a result must not
    depend on where it was computed. A finding for each node that differs, or one for all."""
    differing = []
    for node, found in nodes.items():
        wrong = [
            name for name in sorted({*driver.packages, *found.packages})
            if found.packages.get(name) != driver.packages.get(name)
        ]  # fmt: skip
        parts = [f"{name} {found.packages.get(name) or 'missing'}, here {driver.packages.get(name) or 'missing'}"
                 for name in wrong]  # fmt: skip
        if found.python != driver.python:
            parts.insert(0, f"Python {found.python}, here {driver.python}")
            fix = f"install Python {driver.python} on it, and the packages anew: `pip install -c constraints/cpu.txt`"
        else:
            wanted = [f"{name}=={driver.packages[name]}" for name in wrong if driver.packages.get(name)]
            unwanted = [name for name in wrong if not driver.packages.get(name)]
            commands = [f"pip install {' '.join(wanted)}"] if wanted else []
            commands += [f"pip uninstall {' '.join(unwanted)}"] if unwanted else []
            fix = f"on it: {' && '.join(commands)}"
        if parts:
            differing.append(failed("versions", "; ".join(parts), fix).on(node))
    return differing or [ok("versions", f"Python and packages are the same on {len(nodes)} nodes")]
