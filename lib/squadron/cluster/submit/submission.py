"""From the words of `squadron submit` to a job that is on its way: all is checked here before anything is sent."""

from __future__ import annotations

import argparse
import re
import secrets
import shlex
import tempfile
from pathlib import Path

from squadron.cluster.submit.client import JOB, RUN, Client
from squadron.cluster.submit.inputs import place_inputs
from squadron.cluster.submit.packaging import SETTINGS, Package, pack_code, pack_environment, pack_job, shown_size
from squadron.core import console, runner
from squadron.core.config import Config
from squadron.core.errors import ConfigError, ResourceError
from squadron.core.folder import Folder
from squadron.core.inputs import replace_paths, walk_settings
from squadron.core.masking import mask_text
from squadron.core.yaml_text import write_yaml

_HOOK = "squadron.core.shipped.take_up_environment"
_RUN = "exec python -m squadron.core.cli run"
_LEFT_OUT_SHOWN = 3


def send(options: argparse.Namespace, address: str) -> tuple[Client, str]:
    """Submit the job, and give its name on the cluster.

    Raises what `squadron plan` does for wrong settings; InputError for input files that the cluster would not see,
    ConfigError for a run folder that it would not, and ResourceError for a package that is too large, a cluster that
    does not answer, or a run folder in which a job is at work.
    """
    if not options.run:
        fix = "name a folder that all nodes share, or a URL such as s3://bucket/runs/first, by --run"
        raise ConfigError("a submitted job needs a run folder", where="--run", fix=fix)
    job, config, folder, _ = runner.resolve(options)
    package = pack_code()
    called, own = pack_job(options.job, package.files)
    package.files |= own | pack_environment(options.env)
    client = Client(address)
    same_machine, nodes = client.is_here()
    check_folder(options.run, folder, same_machine, nodes)
    placed = place_inputs(config, options.ship, options.shared, same_machine)
    package.files |= placed.files
    settings = replace_paths(config.model_dump(mode="json"), placed.moved)
    package.files[SETTINGS] = write_yaml(settings).encode()
    package.check_size()
    if (other := client.running_in(folder.url)) is not None:
        fix = f"follow it by `squadron submit --follow {other}`, stop it by --stop, or give another folder"
        raise ResourceError(f"the job {other} is at work in this run folder", where=folder.url, fix=fix)
    name = make_name(options, job.name)
    entrypoint = make_entrypoint(options, called, folder)
    _say_what_goes(package, config, options)
    with tempfile.TemporaryDirectory() as scratch:
        archive = Path(scratch, "package.zip")
        package.write(archive)
        metadata = {"job_name": name, JOB: job.name, RUN: folder.url}
        client.submit(name, entrypoint, archive, metadata, _HOOK if options.env else None)
    console.say(f"Submitted [bold]{console.plain(name)}[/bold] to {console.plain(address)}")
    return client, name


def check_folder(given: str, folder: Folder, same_machine: bool, nodes: int) -> None:
    """Raise ConfigError if a run folder is one that the cluster's nodes would not share, or holds a secret, which the
    dashboard would show."""
    if mask_text(given) != given:
        fix = "leave it out of the URL, and let the cluster have it, or send a variable by --env NAME"
        raise ConfigError(
            "the URL of the run folder holds a secret, which the dashboard would show", where="--run", fix=fix
        )
    if folder.path and not same_machine and not given.startswith(("/", "~", "file://")):
        what = f"{given} is a folder of this machine, and the cluster has {nodes} of its own"
        fix = "give an absolute path that all nodes share, or a URL such as s3://bucket/runs/first"
        raise ConfigError(what, where="--run", fix=fix)


def make_entrypoint(options: argparse.Namespace, called: str, folder: Folder) -> str:
    """What the cluster is to run. Everybody who sees the dashboard sees it: settings are in a file instead."""
    words = [called, SETTINGS, "--run", folder.url, "--profile", options.profile, "--track", options.track]
    words += ["--workers", str(options.workers)] if options.workers is not None else []
    words += ["--wait-s", f"{options.wait_s:g}"] if options.wait_s is not None else []
    for stage in options.rerun:
        words += ["--rerun", stage]
    return f"{_RUN} {shlex.join(words)}"


def make_name(options: argparse.Namespace, job: str) -> str:
    """What the job is called on the cluster, where its name stands in paths and URLs, and no other has it."""
    words = options.settings
    usual = f"{job}-{Path(words[0]).stem if words and '=' not in words[0] else 'demo'}"
    return f"{re.sub(r'[^A-Za-z0-9_.-]+', '-', options.name or usual)}-{secrets.token_hex(3)}"


def _say_what_goes(package: Package, config: Config, options: argparse.Namespace) -> None:
    size = shown_size(package.size())
    console.say(f"[dim]Sending {len(package.files)} files, {size}: code, settings and what --ship names[/dim]")
    if package.left_out:
        shown = ", ".join(package.left_out[:_LEFT_OUT_SHOWN])
        more = f" and {len(package.left_out) - _LEFT_OUT_SHOWN} more" if len(package.left_out) > _LEFT_OUT_SHOWN else ""
        console.say(f"[yellow]Not sent, since git does not know them: {console.plain(shown)}{more}[/yellow]")
    for key, variable in walk_settings(config):
        if key.endswith("_env") and variable and variable not in options.env:
            said = f"{key} names the variable {variable}, which the cluster must have, or --env {variable} sends"
            console.say(f"[dim]{console.plain(said)}[/dim]")
