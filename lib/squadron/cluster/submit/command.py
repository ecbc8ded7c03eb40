"""`squadron submit`: run a job on a cluster, from anywhere."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from squadron.core.arguments import add_job_arguments

if TYPE_CHECKING:
    from squadron.cluster.submit.client import Client

HELP = "run a job on a cluster, sent there with its code and settings"
_STOP_S = 40.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What `submit` takes: what `run` does, and more."""
    add_job_arguments(parser, needed=False, address="the cluster's dashboard, such as http://HEAD:8265")
    parser.add_argument("--name", help="what the job is called on the cluster (default: JOB-CONFIGURATION)")
    parser.add_argument(
        "--ship", metavar="PATH", action="append", default=[], help="send this input file or folder along"
    )
    parser.add_argument(
        "--shared", metavar="FOLDER", action="append", default=[], help="a folder that all nodes see at the same path"
    )
    sent = "send this variable's value along, if the nodes do not have it already"
    parser.add_argument("--env", metavar="NAME", action="append", default=[], help=sent)
    parser.add_argument("--rerun", metavar="STAGE", action="append", default=[], help="as `run` has it")
    parser.add_argument(
        "--wait", action=argparse.BooleanOptionalAction, default=True, help="show the job's log until it ends"
    )
    parser.add_argument("--follow", metavar="ID", help="show the log of a job that was submitted before")
    parser.add_argument("--stop", metavar="ID", help="ask a submitted job to end in order")


def command(options: argparse.Namespace) -> int:
    """Send a job with its code, its settings and chosen files to a cluster, and show its log until it ends; the exit
    status is the job's. Ctrl-C leaves the job at work."""
    from squadron.cluster.submit.client import Client, find_address
    from squadron.cluster.submit.submission import send
    from squadron.core.errors import ConfigError

    asked = [word for word in (options.job, options.follow, options.stop) if word is not None]
    if len(asked) != 1:
        raise ConfigError("give a job, or --follow ID, or --stop ID", fix="`squadron ls` lists the jobs")
    address = find_address(options.address)
    where = f" --address {address}" if options.address else ""
    if options.stop is not None:
        return _stop(Client(address), options.stop)
    if options.follow is not None:
        return _follow(Client(address), options.follow, where)
    client, name = send(options, address)
    return _follow(client, name, where) if options.wait else _say_how(name, where)


def _follow(client: Client, name: str, where: str) -> int:
    from squadron.cluster.submit.follow import Follower, exit_status

    try:
        return exit_status(Follower(client, name).follow())
    except KeyboardInterrupt:
        _say_how(name, where)
        raise


def _say_how(name: str, where: str) -> int:
    from squadron.core import console

    console.say("The job goes on without this command.")
    console.say(f"Follow it: squadron submit --follow {console.plain(name + where)}")
    console.say(f"Stop it:   squadron submit --stop {console.plain(name + where)}")
    return 0


def _stop(client: Client, name: str) -> int:
    from squadron.cluster.submit.follow import wait_for_end
    from squadron.core import console

    running = client.stop(name)
    info = wait_for_end(client, name, _STOP_S)
    said = f"is asked to stop, and is {info.status.value.lower()}" if running else f"had ended: {info.status.value}"
    console.say(f"{console.plain(name)} {said}. Finished work is kept: submit the same again to resume.")
    return 0
