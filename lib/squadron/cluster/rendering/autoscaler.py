"""Files of `ray up`: the same cluster on machines of a cloud, or on machines that are there, by SSH and Docker.

Ray knows their form by `ray/autoscaler/ray-schema.json`. The dashboard listens on loopback, every call needs the token,
and nodes know each other by certificates that each makes when it starts.
"""

from __future__ import annotations

import shlex
from functools import singledispatch
from typing import Any

from squadron.cluster.certificates import environment
from squadron.cluster.rendering.clouds import Aws, Cloud, CloudSpec, Gcp, OnPremise
from squadron.cluster.rendering.pods import Manifest
from squadron.cluster.rendering.spec import ClusterSpec, Machine

_SECRETS, _TLS, _ENVIRONMENT = "~/.squadron/cluster", "~/.squadron/tls", "~/.squadron/environment"
_START = f". {_ENVIRONMENT} && ulimit -n 65536 && ray start --disable-usage-stats"
_GB = 1024**3


def cloud_file(spec: ClusterSpec, cloud: CloudSpec) -> Manifest:
    """The file for one cloud."""
    described: Manifest = {"cluster_name": spec.name} | _nodes(cloud, spec)
    described |= {
        "idle_timeout_minutes": round(spec.idle_timeout_s / 60, 3),
        "auth": {"ssh_user": cloud.ssh.user, "ssh_private_key": cloud.ssh.private_key},
        "docker": _docker(spec),
        "file_mounts": {_SECRETS: cloud.secrets_folder},
        "setup_commands": [_write_environment(spec)],
        "head_setup_commands": [],
        "worker_setup_commands": [],
        "head_start_ray_commands": [
            *_before(spec),
            f"{_START} --head --port=6379 --dashboard-host=127.0.0.1 --num-cpus=0 "
            "--autoscaling-config=~/ray_bootstrap_config.yaml",
        ],
        "worker_start_ray_commands": [*_before(spec), f"{_START} --address=$RAY_HEAD_IP:6379"],
    }
    return described


def _docker(spec: ClusterSpec) -> Manifest:
    options = ["--ulimit nofile=65536:65536", "--cap-drop=ALL", "--security-opt=no-new-privileges"]
    if spec.storage.claim:
        options.append(f"--volume {spec.storage.folder}:{spec.storage.folder}")  # mounted on every machine
    return {
        "image": spec.image,
        "container_name": "squadron",
        "pull_before_run": True,
        "run_options": options,
    }


def _before(spec: ClusterSpec) -> list[str]:
    """An earlier Ray ends; the certificate is made. Each start makes a new one."""
    words = f"python -m squadron.cluster.certificates node --authority {_SECRETS} --out {_TLS}"
    return ["ray stop", *([words] if spec.tls else [])]


def _write_environment(spec: ClusterSpec) -> str:
    """Write the file that whoever starts Ray or a run on a node reads first. What is secret, it reads from `env`."""
    settings = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": f"{_SECRETS}/token"}
    if spec.tls:
        settings |= environment(_TLS)
    settings |= {"RAY_JOB_STOP_WAIT_TIME_S": str(spec.grace_s - 20)} | spec.env
    lines = [f"export {name}={_value(value)}" for name, value in settings.items()]
    if spec.secrets or spec.env_from or spec.storage.secret:
        lines.append(f"set -a && . {_SECRETS}/env && set +a")
    return f"printf '%s\\n' {' '.join(map(shlex.quote, lines))} > {_ENVIRONMENT}"


def _value(value: str) -> str:
    """Quoted for the shell, but for the home folder, which it is to fill in."""
    return f'"$HOME{value[1:]}"' if value.startswith("~/") else shlex.quote(value)


@singledispatch
def _nodes(cloud: Cloud, spec: ClusterSpec) -> Manifest:
    """The machines: what differs from cloud to cloud."""
    raise TypeError(f"no cloud: {type(cloud).__name__}")


@_nodes.register
def _aws(cloud: Aws, spec: ClusterSpec) -> Manifest:
    def config(kind: str) -> Manifest:
        disk = {"VolumeSize": cloud.disk_gb, "VolumeType": "gp3", "Encrypted": True}
        described: Manifest = {
            "InstanceType": kind,
            "ImageId": cloud.machine_image,
            "KeyName": cloud.key_name,
            "SubnetIds": list(cloud.subnets),
            "SecurityGroupIds": list(cloud.security_groups),
            "BlockDeviceMappings": [{"DeviceName": "/dev/sda1", "Ebs": disk}],
            # what runs in a container gets at the machine's role by tokens alone
            "MetadataOptions": {"HttpTokens": "required", "HttpPutResponseHopLimit": 2},
        }
        if cloud.instance_profile:
            described["IamInstanceProfile"] = {"Name": cloud.instance_profile}
        return described

    provider = {
        "type": "aws",
        "region": cloud.region,
        "cache_stopped_nodes": False,
        "use_internal_ips": cloud.internal,
    }
    types = {name: config(kind) for name, kind in _types(spec, cloud).items()}
    return {"provider": provider} | _node_types(spec, types)


@_nodes.register
def _gcp(cloud: Gcp, spec: ClusterSpec) -> Manifest:
    def config(kind: str, cards: int) -> Manifest:
        image = {"diskSizeGb": cloud.disk_gb, "sourceImage": cloud.machine_image}
        described: Manifest = {
            "machineType": kind,
            "disks": [{"boot": True, "autoDelete": True, "type": "PERSISTENT", "initializeParams": image}],
            "networkInterfaces": [{"kind": "compute#networkInterface", "subnetwork": cloud.subnetwork}],
            "shieldedInstanceConfig": {"enableSecureBoot": True, "enableVtpm": True},
        }
        if cards:  # a machine with cards cannot be moved while it runs
            described["scheduling"] = [{"onHostMaintenance": "TERMINATE"}]
        return described

    provider = {
        "type": "gcp",
        "region": cloud.region,
        "availability_zone": cloud.zone,
        "project_id": cloud.project,
        "use_internal_ips": cloud.internal,
    }
    machines = {name: machine for name, (_, machine) in spec.groups.items()}
    types = {
        name: config(kind, machines[name].cards if name in machines else 0)
        for name, kind in _types(spec, cloud).items()
    }
    return {"provider": provider} | _node_types(spec, types)


@_nodes.register
def _local(cloud: OnPremise, spec: ClusterSpec) -> Manifest:
    """Each machine offers what Ray finds on it."""
    count = len(cloud.workers)
    provider = {"type": "local", "head_ip": cloud.head, "worker_ips": list(cloud.workers)}
    return {"provider": provider, "max_workers": count}


def _types(spec: ClusterSpec, cloud: Aws | Gcp) -> dict[str, str]:
    """Groups by their names, the head first, and the cloud's name of their machines."""
    kinds = {"machines": cloud.machine_type or "", "cpu": cloud.cpu_type}
    return {"head": cloud.head_type} | {name: kinds[name] for name in spec.groups}


def _node_types(spec: ClusterSpec, configs: dict[str, Manifest]) -> Manifest:
    head: Manifest = {"resources": {"CPU": 0}, "min_workers": 0, "max_workers": 0, "node_config": configs["head"]}
    types = {"head": head}
    for name, (group, machine) in spec.groups.items():
        types[name] = {
            "resources": _offer(machine),
            "min_workers": group.min,
            "max_workers": spec.most(name),
            "node_config": configs[name],
        }
    most = sum(spec.most(name) for name in spec.groups)
    return {"max_workers": most, "head_node_type": "head", "available_node_types": types}


def _offer(machine: Machine) -> dict[str, Any]:
    offer = {"CPU": machine.cpus, "memory": int(machine.memory_gb * _GB)}
    return offer | ({"GPU": machine.cards} if machine.cards else {})
