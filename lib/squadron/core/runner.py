"""From the words on the command line to a finished run and its report."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

from squadron.core import console, registry
from squadron.core.config import Config, load_config
from squadron.core.errors import ConfigError, SquadronError, suggest
from squadron.core.folder import Folder
from squadron.core.inputs import check_inputs
from squadron.core.job import Job
from squadron.core.manifest import check_manifest
from squadron.core.marker import MARKER, check_told, read_marker
from squadron.core.profile import Profile, find_profile
from squadron.core.run import Run
from squadron.core.run_reader import read_config_yaml, read_failures, read_headlines, read_panels


def resolve(options: argparse.Namespace) -> tuple[Job, Config, Folder, Profile]:
    """The job, its validated configuration, its run folder and the hardware profile. Raises ConfigError."""
    job = registry.load_job(options.job)
    words = list(options.settings)
    named = words.pop(0) if words and ("=" not in words[0] or os.path.isfile(words[0])) else None
    path = registry.find_config(job.name, named)
    config = load_config(job.config_type, path, words)
    folder = Folder(options.run) if options.run else default_folder(f"{job.name}-{path.stem if path else 'default'}")
    return job, config, folder, _profile(options)


def _profile(options: argparse.Namespace) -> Profile:
    profile = find_profile(options.profile)
    given = {name: getattr(options, name) for name in ("workers", "wait_s")}
    return Profile.model_validate(profile.model_dump() | {name: v for name, v in given.items() if v is not None})


def run(options: argparse.Namespace) -> None:
    """Run a job to its end, write its report, and say what came out. Ctrl-C and errors keep finished work."""
    job, config, folder, profile = resolve(options)
    check_inputs(config)
    rerun = _known_stages(job, config, folder, profile, tuple(options.rerun))
    work = Run(job.name, config, folder, profile, options.address, tracks(options), rerun)
    work.open()
    console.say(f"[bold]{job.name}[/bold] in {console.plain(str(folder))}")
    try:
        report = execute(job, work)
    finally:
        work.close()
    print_summary(work, report)


def _known_stages(
    job: Job, config: Config, folder: Folder, profile: Profile, asked: tuple[str, ...]
) -> tuple[str, ...]:
    """The stages asked for. Raises ConfigError for a name that the job has not."""
    if asked:
        from squadron.core.plan import plan_stages

        known = {name for name, _, _ in plan_stages(job, config, folder, profile).steps}
        for name in asked:
            if name not in known:
                raise ConfigError(f"{job.name} has no stage {name!r}", where="--rerun", fix=suggest(name, known))
    return asked


def tracks(options: argparse.Namespace) -> tuple[str, ...]:
    """The trackers that were asked for."""
    return tuple(name for name in options.track.split(",") if name and name != "none")


def execute(job: Job, work: Run) -> str:
    """Run a job in its open folder, and return the path of its report, which it also gets where it fails."""
    try:
        job(work, work.config)
    except SquadronError:
        if work.stages:
            write_report(work.folder)
            console.say("Finished work is kept: fix the cause and give the same command again to resume.")
        raise
    return write_report(work.folder)


def write_report(folder: Folder) -> str:
    """Render `report.html` from what the run folder holds, and return its path. Raises InputError if it is no run."""
    from squadron.core.report import render

    page = render(read_view(folder))
    folder.write_bytes("report.html", page.encode())
    return folder.file("report.html")


def read_view(folder: Folder) -> Any:
    """What the report shows, gathered from a run folder."""
    from squadron.core.report import RunView

    manifest = check_manifest(folder)
    folders = [folder / "stages" / name for name in manifest.get("stages") or []]
    stages = [_stage_view(stage) for stage in folders if stage.exists("started.json")]
    failures = [{"stage": stage.name, **row} for stage in stages for row in read_failures(stage.folder)]
    return RunView(
        title=f"Rehearsal of {manifest['job']}" if manifest.get("rehearsal") else manifest["job"],
        summary=registry.list_jobs().get(manifest["job"], ""),
        figures=[figure for stage in stages for figure in read_headlines(stage.folder)],
        stages=stages,
        failures=failures,
        config_yaml=read_config_yaml(folder).decode(),
        manifest={key: value for key, value in manifest.items() if key != "stages"},
        next_commands=next_commands(manifest["job"], folder),
    )


def next_commands(job: str, folder: Folder) -> list[str]:
    """What a user would try after this run."""
    # The shell's word for where we are: the folder of a submitted job may be gone by now, and getcwd would raise.
    shown = folder.path.removeprefix(f"{os.environ.get('PWD', '')}/") or folder.url
    others = [name for name in registry.list_configs(job) if name not in ("smoke", "demo")]
    return [f"squadron plan {job} {other}" for other in others[:1]] + [f"squadron report {shown}"]


def default_folder(name: str) -> Folder:
    """`runs/<name>` here; at home inside a submitted job, whose own folder is a temporary copy."""
    root = Path.home() / "squadron" if "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ else Path.cwd()
    return Folder(root / "runs" / name)


def _stage_view(folder: Folder) -> Any:
    """A stage as the report shows it. Raises InputError if what it has told is not what it was."""
    from squadron.core.report import StageView

    done = read_marker(folder) if folder.exists(MARKER) else None
    if done is not None:
        check_told(folder, done)
    return StageView(
        name=folder.name.rpartition("-")[0],
        seconds=done.seconds if done else 0.0,
        status="finished" if done else "unfinished",
        panels=read_panels(folder),
        folder=folder,
        changed=(lambda name: done.changed(folder, name)) if done else lambda name: "",
    )


def print_summary(work: Run, report: str) -> None:
    """Print a run's headline numbers, where its report is, and what one would do next."""
    figures = [figure for stage in work.stages for figure in read_headlines(stage.folder)]
    failures = sum(len(stage.failures()) for stage in work.stages)
    console.table(("result", ""), [*figures, *([("failed rows", str(failures))] if failures else [])], title="")
    console.say(f"Report: [bold]{console.plain(report)}[/bold]")
    for command in next_commands(work.job, work.folder):
        console.say(f"Next:   {console.plain(command)}")
