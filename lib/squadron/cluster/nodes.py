"""The process that all nodes of a local cluster descend from: `python -P nodes.py NODES CPUS PORT_OF_THE_DASHBOARD`.

It starts them, says where the head is, and waits. When it ends, however that happens, Ray's processes end with it. It
imports nothing of ours: what a cluster runs comes with a job.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

_OBJECT_STORE_BYTES = 200_000_000


def main(nodes: int, cpus: int, dashboard_port: int) -> None:
    """Hold so many nodes with so many CPUs each until a signal ends this process."""
    from ray.cluster_utils import Cluster

    each: dict[str, Any] = {
        "num_cpus": cpus,
        "num_gpus": 0,
        "node_ip_address": "127.0.0.1",
        "object_store_memory": _OBJECT_STORE_BYTES,
        "dashboard_agent_listen_port": None,  # any that is free
    }
    head: dict[str, Any] = {
        "node_name": "head",
        "include_dashboard": True,
        "dashboard_host": "127.0.0.1",
        "dashboard_port": dashboard_port,
    }
    cluster = Cluster(initialize_head=True, head_node_args=each | head)
    for number in range(1, nodes):
        name = f"worker-{number}"
        # A folder of its own, as on a machine of its own: each node unpacks the code of a job anew, in the place of
        # what was there, and takes it from under processes of others.
        cluster.add_node(**each, node_name=name, temp_dir=os.path.join(os.environ["RAY_TMPDIR"], name))
    print(f"address {cluster.address}", flush=True)
    signal.pause()


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
