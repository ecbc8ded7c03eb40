"""`squadron cluster`: clusters of several nodes, on this machine and elsewhere."""

from __future__ import annotations

import argparse
from pathlib import Path

HELP = "a cluster of several nodes: one on this machine for trying things, and files for others"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What `cluster` takes: what to do, and what that takes."""
    known = "up | down | status | render | check | authority"
    doing = parser.add_subparsers(dest="doing", required=True, metavar=known)
    up = doing.add_parser("up", help="start a cluster of several nodes on this machine")
    up.add_argument("--nodes", type=int, default=3, metavar="N", help="how many nodes, with the head (default: 3)")
    up.add_argument("--cpus", type=int, default=1, metavar="N", help="how many CPUs each node offers (default: 1)")
    doing.add_parser("down", help="end the cluster of this machine")
    doing.add_parser("status", help="which of its nodes live")
    render = doing.add_parser("render", help="write manifests and files of `ray up` from a specification")
    render.add_argument("file", type=Path, metavar="SPEC.yaml")
    render.add_argument("--out", type=Path, metavar="FOLDER", help="where to (default: print them)")
    check = doing.add_parser("check", help="say what is wrong with manifests and files of `ray up`")
    check.add_argument("files", type=Path, nargs="+", metavar="FILE", help="files, or folders of them")
    kubectl = "kubectl get crd rayclusters.ray.io rayjobs.ray.io rayservices.ray.io -o yaml"
    check.add_argument("--definitions", type=Path, metavar="FILE", help=f"KubeRay's, as by: {kubectl}")
    authority = doing.add_parser("authority", help="make ca.crt and ca.key, by which nodes make their certificates")
    authority.add_argument("folder", type=Path)


def command(options: argparse.Namespace) -> None:
    """Start, end or show a Ray cluster of several nodes on this machine, which listens on loopback alone and asks for a
    token; or write and check the files that describe one elsewhere."""
    from squadron.cluster import local, manifests

    match options.doing:
        case "up":
            local.say_up(options.nodes, options.cpus)
        case "down":
            local.say_down()
        case "render":
            manifests.say_rendered(options.file, options.out)
        case "check":
            manifests.say_checked(options.files, options.definitions)
        case "authority":
            manifests.say_authority(options.folder)
        case _:
            local.say_status()
