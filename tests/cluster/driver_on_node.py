"""`squadron WORD …` as a driver on one node of a cluster that has several on this machine.

python tests/cluster/driver_on_node.py ADDRESS IP WORD …
"""

from __future__ import annotations

import logging
import sys

import ray

from squadron.core.cli import main

if __name__ == "__main__":
    address, ip, *words = sys.argv[1:]
    ray.init(address=address, _node_ip_address=ip, log_to_driver=False, logging_level=logging.ERROR)
    sys.exit(main(words))
