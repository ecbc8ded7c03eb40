"""`squadron rehearse`: play a preset through in small, before it takes a cluster for days."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from squadron.core.arguments import add_job_arguments

if TYPE_CHECKING:
    from squadron.core.config import Config
    from squadron.core.folder import Folder
    from squadron.core.job import Job
    from squadron.core.profile import Profile
    from squadron.rehearse.stand_ins import LocalStandIns

HELP = "play any configuration through in small, with stand-ins for its models, data and servers"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What `rehearse` takes: what `run` does."""
    add_job_arguments(parser)


def command(options: argparse.Namespace) -> None:
    """Play every stage of a configuration on this machine: the same code, precision, sharding and adapters, with few
    rows and steps, small models of random weights, and a local server in place of those asked."""
    from squadron.core import console, runner
    from squadron.core.folder import Folder

    job, config, default, profile = runner.resolve(options)
    folder = default if options.run else Folder(default.url.rpartition("/")[0]) / f"rehearsal-{default.name}"
    report = rehearse_job(job, config, folder, profile.workers, options.address)
    _say_missing(job, config, folder, profile)
    console.say(f"Report: [bold]{console.plain(report)}[/bold]")
    words = " ".join([options.job, *options.settings])
    console.say(f"Next:   squadron run {console.plain(words)} --profile {profile.name}")


def rehearse_job(
    job: Job, config: Config, folder: Folder, workers: int | None = None, address: str | None = None
) -> str:
    """Rehearse a configuration in a folder of its own, anew each time, and return the path of its report.

    `workers`: how many each training has; None: one. Raises whatever a stage does.
    """
    from pathlib import Path

    from squadron.core import console, runner
    from squadron.core.profile import Profile
    from squadron.core.rehearsal import rehearse
    from squadron.core.run import STAND_INS, Run
    from squadron.rehearse.stand_ins import LocalStandIns
    from squadron.train.library_setup import quiet_libraries

    quiet_libraries()
    _clear(folder)
    stand_ins = LocalStandIns(Path(folder.path) / STAND_INS, job.replies)
    try:
        small = rehearse(config, stand_ins)
        _say_changes(config, small, stand_ins)
        work = Run(job.name, small, folder, Profile(name="rehearsal", workers=workers), address, (), rehearsal=True)
        work.open()
        console.say(f"[bold]rehearsal of {job.name}[/bold] in {console.plain(str(folder))}")
        try:
            report = runner.execute(job, work)
        finally:
            work.close()
        _say_played(work)
    finally:
        stand_ins.close()
    return report


def _clear(folder: Folder) -> None:
    """Remove an earlier rehearsal. Raises InputError if the folder holds anything else, or is not of this machine."""
    from squadron.core.errors import InputError
    from squadron.core.manifest import check_manifest
    from squadron.core.run import STAND_INS

    if not folder.path:
        fix = "leave --run out, or give a folder of this machine"
        raise InputError("a rehearsal is played on this machine", where=str(folder), fix=fix)
    if folder.exists("run.json") and not check_manifest(folder).get("rehearsal"):
        fix = "leave --run out, or give another folder"
        raise InputError("this folder holds a run that is no rehearsal", where=str(folder), fix=fix)
    if folder.exists("run.json") or folder.ls() == [STAND_INS]:
        folder.remove()


def _say_changes(config: Config, small: Config, stand_ins: LocalStandIns) -> None:
    """Every setting that is not as it was, and what stands in for what."""
    from squadron.core import console
    from squadron.core.config import flatten
    from squadron.core.masking import mask_secrets

    before, after = (flatten(mask_secrets(one.model_dump(mode="json"))) for one in (config, small))
    rows = [
        (key, _short(before.get(key)), _short(after.get(key)))
        for key in after
        if before.get(key) != after.get(key) and ".rehearsed" not in key
    ]
    console.table(("setting", "in the run", "in this rehearsal"), rows)
    if stand_ins.notes:
        console.table(("what is named", "what plays it"), list(stand_ins.notes.items()))


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 48 else f"…{text[-47:]}"


def _say_played(work: Any) -> None:
    from squadron.core import console
    from squadron.core.marker import read_marker

    rows = [(one.name, f"{read_marker(one.folder).seconds if one.done else 0.0:.1f} s") for one in work.stages]
    console.table(("stage played", "time"), rows)


def _say_missing(job: Job, config: Config, folder: Folder, profile: Profile) -> None:
    """What the run itself needs and this machine lacks."""
    from squadron.core import console
    from squadron.core.plan import find_missing, inspect_machine

    missing = find_missing(job, config, profile, inspect_machine(folder))
    if missing:
        console.say("The run itself still needs: " + console.plain("; ".join(missing)))
