"""`squadron serve`: answer requests with what runs have trained."""

from __future__ import annotations

import argparse
import os

HELP = "answer requests with what a run has trained"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What `serve` takes."""
    parser.add_argument("folder", help="a run folder, or its URL")
    parser.add_argument(
        "settings",
        nargs="*",
        help="more run folders, to be served beside it; port=8000, host=0.0.0.0, replicas=2 …",
    )
    parser.add_argument("--address", help="Ray cluster to serve on, such as auto (default: this machine)")
    own = "the file of a job of your own that one of the runs is of, whose code is run; may be given more than once"
    parser.add_argument("--job", metavar="FILE", action="append", default=[], help=own)
    parser.add_argument("--deploy-file", metavar="FILE", help="serve nothing; write FILE for `serve deploy FILE`")


def command(options: argparse.Namespace) -> None:
    """Answer requests over HTTP with what runs have trained."""
    from squadron.core.config import load_config
    from squadron.core.folder import Folder
    from squadron.serve.runs import gather_services
    from squadron.serve.spec import ServeSpec

    settings = [word for word in options.settings if "=" in word and "/" not in word.partition("=")[0]]
    others = [word for word in options.settings if word not in settings]
    runs = [Folder(folder) for folder in (options.folder, *others)]
    jobs = [os.path.abspath(file) for file in options.job]
    services = gather_services(runs, jobs)
    spec = load_config(ServeSpec, overrides=settings)
    if options.deploy_file:
        from squadron.serve.deploy import config_file

        place, _, name = os.path.abspath(options.deploy_file).rpartition("/")
        Folder(place).write_bytes(name, config_file(runs, spec, jobs).encode())
        return
    from squadron.serve.serving import serve_until_ended

    serve_until_ended(services, spec, options.address)
