"""The command line: `squadron ls · runs · plan · rehearse · run · submit · cluster · sweep · serve · tools · report ·
doctor`.

Nothing heavy is imported until a command needs it, so that `squadron --help` answers at once.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, NoReturn

from squadron import __version__
from squadron.core import ending
from squadron.core.arguments import add_job_arguments
from squadron.core.disk_errors import explain_disk_error
from squadron.core.errors import SquadronError
from squadron.core.shipped import take_up_environment

if TYPE_CHECKING:
    from types import TracebackType

    from squadron.core.config import Config
    from squadron.core.folder import Folder
    from squadron.core.job import Job

_CAPABILITIES = {
    "rehearse": "squadron.rehearse.command",
    "sweep": "squadron.tune.command",
    "serve": "squadron.serve.command",
    "cluster": "squadron.cluster.command",
    "submit": "squadron.cluster.submit.command",
    "tools": "squadron.serve.tools.command",
    "doctor": "squadron.cluster.doctor.command",
}
"""Commands that are not core's own, and the modules that have them: core imports nothing that stands above it."""
_RESUMING = ("run", "sweep")
"""Commands that resume what an earlier one has begun."""
EXIT_USER_ERROR = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status: 0 done, 2 an error that the user can fix, 130 interrupted, 143 and
    129 ended by SIGTERM and SIGHUP; after a submission that of the job. Without `arguments` it is the command of this
    process, whose signals it heeds."""
    sys.excepthook = _print_masked
    if arguments is not None:
        return _main(arguments)
    ending.heed_signals()
    try:
        return _main(None)
    finally:
        ending.close()


def _main(arguments: Sequence[str] | None) -> int:
    take_up_environment()
    parser = _parser()
    options = parse(parser, arguments)
    if not getattr(options, "command", None):
        parser.print_help()
        return 0
    farewell = "Finished work is kept: the same command goes on from here." if options.resumes else ""
    ending.on_late_end(f"Interrupted. {farewell}")
    try:
        return options.command(options) or 0
    except (Exception, KeyboardInterrupt) as error:
        return _explain(error, farewell)


def _explain(error: BaseException, farewell: str) -> int:
    """Say why a command ended before its work was done, and return its exit status. Raises what is a bug of ours."""
    from squadron.core.console import complain, plain

    interrupted = ending.status(error)
    if interrupted is not None:  # then errors are of processes that were asked to end at the same time
        complain(f"[yellow]Interrupted.[/yellow] {farewell}")
        return interrupted
    if isinstance(error, BrokenPipeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    told = error if isinstance(error, SquadronError) else explain_disk_error(error)
    if told is None:
        raise error
    with contextlib.suppress(OSError):  # of a full disk too, to which standard error goes
        complain(f"[bold red]Error:[/bold red] {plain(str(told))}")
    return EXIT_USER_ERROR


def run_job(job: Job) -> NoReturn:
    """`python jobs/<name>.py …`: the same as `squadron run <name> …`, by path for a file of one's own."""
    from squadron.core import registry

    own = job.name not in registry.list_jobs()
    sys.argv[1:1] = ["run", os.path.abspath(sys.argv[0]) if own else job.name]
    sys.exit(main())


def parse(parser: argparse.ArgumentParser, arguments: Sequence[str] | None) -> argparse.Namespace:
    """The words of one command. Settings may stand before and after options, which argparse alone does not allow."""
    options, rest = parser.parse_known_args(arguments)
    unknown = [word for word in rest if word.startswith("-") or not hasattr(options, "settings")]
    if unknown:
        parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    if rest:
        options.settings = [*options.settings, *rest]
    return options


def ls(options: argparse.Namespace) -> None:
    """Jobs with their configurations, and the runs in ./runs."""
    from squadron.core import console, registry
    from squadron.core.folder import Folder

    rows = [(name, ", ".join(registry.list_configs(name)), summary) for name, summary in registry.list_jobs().items()]
    console.table(("job", "configurations", "what it does"), rows)
    _list_runs(Folder(options.runs))


def runs(options: argparse.Namespace) -> None:
    """The runs in a folder, or behind an fsspec URL: which are running, stopped and where, or finished."""
    from squadron.core import console
    from squadron.core.folder import Folder

    if not _list_runs(Folder(options.folder)):
        console.say(f"There are no runs in {console.plain(options.folder)}.")


def _list_runs(folder: Folder) -> bool:
    """List the runs of a folder; whether there are any."""
    from squadron.core import console
    from squadron.core.run_states import read_states

    rows = [(str(run.folder), run.job, run.state, "yes" if run.reported else "not yet") for run in read_states(folder)]
    if rows:
        console.table(("run", "job", "state", "report"), rows)
    return bool(rows)


def plan(options: argparse.Namespace) -> None:
    """Settings, stages, resources and what is missing; starts nothing."""
    from squadron.core import console, runner
    from squadron.core.manifest import check_manifest
    from squadron.core.plan import find_missing, from_hubs, inspect_machine, plan_stages

    job, config, folder, profile = runner.resolve(options)
    if options.show_row is not None:
        return _show_row(job, config, options.show_row)
    if folder.exists("run.json"):
        check_manifest(folder)
    console.say(f"[bold]{job.name}[/bold] would run in {console.plain(str(folder))} with {_settings(options, config)}")
    plan = plan_stages(job, config, folder, profile)
    console.table(("stage", "what it does", "state"), plan.steps)
    machine = inspect_machine(folder)
    workers = min(profile.max_workers or machine.cpus, max(1, int(machine.cpus // profile.worker.cpus)))
    share = f"{profile.worker.cpus:g} CPU, {profile.worker.gpus:g} GPU ({profile.name})"
    cards = ", ".join(machine.gpus) or "no GPU"
    rows = [
        ("this machine", f"{machine.cpus} CPUs, {machine.memory_gb:.0f} GiB memory, {cards}"),
        ("disk free", f"{machine.disk_free_gb:.0f} GiB at {folder}"),
        ("workers", f"{workers} here, each {share}"),
    ]
    if names := from_hubs(config):
        rows.append(("asked of a hub", ", ".join(names)))
    rows += [row for estimate in plan.estimates for row in estimate(config, workers, profile)]
    console.table(("resources", ""), rows)
    missing = find_missing(job, config, profile, machine)
    console.say("Missing: " + console.plain("; ".join(missing)) if missing else "Nothing is missing.")
    if options.rehearse:
        importlib.import_module(_CAPABILITIES["rehearse"]).command(options)


def _show_row(job: Job, config: Config, number: int) -> None:
    """Print a row of a job's data as the model gets it. Raises ConfigError for a job without rows to show."""
    from squadron.core import console
    from squadron.core.errors import ConfigError

    if job.show_row is None:
        raise ConfigError(f"{job.name} has no rows to show", where="--show-row", fix="leave it out")
    for line in job.show_row(config, number):
        console.say(line)


def _settings(options: argparse.Namespace, config: Config) -> str:
    """What `plan` says of the settings: those that differ from the defaults, or all of them."""
    from squadron.core import console
    from squadron.core.config import show_yaml
    from squadron.core.masking import mask_secrets
    from squadron.core.plan import differing

    if options.full:
        return f"these settings:\n\n{console.plain(show_yaml(config.model_dump(mode='json')))}"
    changed = mask_secrets(differing(config))
    if not changed:
        return "the defaults (--full shows them).\n"
    return f"these settings, else the defaults (--full shows all):\n\n{console.plain(show_yaml(changed))}"


def run(options: argparse.Namespace) -> None:
    """Run a job, or go on with one that was interrupted."""
    from squadron.core import runner

    runner.run(options)


def report(options: argparse.Namespace) -> None:
    """Write report.html of a run folder again, from what the folder holds."""
    from squadron.core import console, runner
    from squadron.core.folder import Folder

    console.say(f"Report: {console.plain(runner.write_report(Folder(options.folder)))}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="squadron", description="Published research methods as jobs on Ray.")
    parser.add_argument("--version", action="version", version=f"squadron {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="")
    parser.set_defaults(resumes=False)

    listing = commands.add_parser("ls", help="jobs, their configurations, and runs")
    listing.add_argument("--runs", default="runs", help="folder of runs to list (default: runs)")
    listing.set_defaults(command=ls)

    running = commands.add_parser("runs", help="runs, and how far they have come", description=runs.__doc__)
    running.add_argument("folder", nargs="?", default="runs", help="folder of runs, or its URL (default: runs)")
    running.set_defaults(command=runs)

    for name, command, text in (
        ("plan", plan, "what a run would do; starts nothing"),
        ("run", run, "run a job or go on with it"),
    ):
        sub = commands.add_parser(name, help=text, description=command.__doc__)
        add_job_arguments(sub)
        sub.set_defaults(command=command, resumes=name in _RESUMING)
        if name == "run":
            again = "enter a finished stage again, which then uses what it finds; may be given more than once"
            sub.add_argument("--rerun", metavar="STAGE", action="append", default=[], help=again)
        if name == "plan":
            sub.add_argument("--full", action="store_true", help="show every setting, not only those that were changed")
            sub.add_argument("--rehearse", action="store_true", help="then play it in small, as `rehearse` does")
            shown = "show record N as the model gets it, with what is taught marked, in place of the plan"
            sub.add_argument("--show-row", type=int, metavar="N", help=shown)

    for name, module in _CAPABILITIES.items():
        capability = importlib.import_module(module)
        sub = commands.add_parser(name, help=capability.HELP, description=capability.command.__doc__)
        capability.add_arguments(sub)
        sub.set_defaults(command=capability.command, resumes=name in _RESUMING)

    rendering = commands.add_parser("report", help="write the report of a run folder again", description=report.__doc__)
    rendering.add_argument("folder", help="a run folder, or its URL")
    rendering.set_defaults(command=report)
    return parser


def _print_masked(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """A mistake of ours with its traceback, as Python prints it, but for secrets."""
    import traceback

    from squadron.core.masking import mask_text

    sys.stderr.write(mask_text("".join(traceback.format_exception(kind, error, trace))))


if __name__ == "__main__":
    sys.exit(main())
