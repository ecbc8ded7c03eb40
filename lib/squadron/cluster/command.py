"""`squadron cluster`: clusters of several nodes."""

from __future__ import annotations

import argparse

HELP = "a cluster of several nodes: one on this machine for trying things"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What `cluster` takes: what to do, and what that takes."""
    doing = parser.add_subparsers(dest="doing", required=True, metavar="up | down | status")
    up = doing.add_parser("up", help="start a cluster of several nodes on this machine")
    up.add_argument("--nodes", type=int, default=3, metavar="N", help="how many nodes, with the head (default: 3)")
    up.add_argument("--cpus", type=int, default=1, metavar="N", help="how many CPUs each node offers (default: 1)")
    doing.add_parser("down", help="end the cluster of this machine")
    doing.add_parser("status", help="which of its nodes live")


def command(options: argparse.Namespace) -> None:
    """Start, end or show a Ray cluster of several nodes on this machine, which listens on loopback alone and asks for a
    token."""
    from squadron.cluster import local

    match options.doing:
        case "up":
            local.say_up(options.nodes, options.cpus)
        case "down":
            local.say_down()
        case _:
            local.say_status()
