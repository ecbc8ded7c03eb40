"""`squadron sweep`: find the best settings of a job."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from squadron.core.arguments import add_job_arguments

if TYPE_CHECKING:
    from squadron.core.job import Job
    from squadron.core.run import Run
    from squadron.tune.spec import SweepSpec

HELP = "find the best settings of a job, by many runs of it"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What `sweep` takes: what `run` does, and more."""
    add_job_arguments(parser)
    parser.add_argument(
        "--over",
        nargs="+",
        action="extend",
        required=True,
        metavar="SETTING=VALUES",
        help="what to vary: key.path=a,b or key.path='loguniform(1e-5,1e-3)'; also choice, grid, uniform, randint, "
        "lograndint, and with a colon, loguniform:1e-5,1e-3, where a shell would want quotes",
    )
    parser.add_argument("--metric", help="what to compare trials by (default: the first that the job has)")
    parser.add_argument("--goal", choices=("max", "min"), help="whether more or less of it is better, if not as usual")
    parser.add_argument("--trials", type=int, metavar="N", help="how many (default: 12, or all of the grid)")
    parser.add_argument("--search", choices=("random", "optuna"), default="random", help="how settings are chosen")
    parser.add_argument(
        "--scheduler",
        choices=("none", "asha", "pbt"),
        default="none",
        help="asha stops the worse trials early, pbt lets them resume better ones' work",
    )
    parser.add_argument(
        "--grace", type=int, default=1, metavar="N", help="asha: values that no trial is stopped before"
    )
    parser.add_argument("--perturb-every", type=int, default=5, metavar="N", help="pbt: values between two changes")
    parser.add_argument("--max-parallel", type=int, metavar="N", help="trials side by side (default: one)")
    parser.add_argument("--sweep-seed", type=int, default=0, metavar="N", help="seed of the search itself")


def command(options: argparse.Namespace) -> None:
    """Run the trials of a sweep, or resume one that was interrupted; write its report and the winner's config."""
    from squadron.core import console, runner
    from squadron.core.folder import Folder
    from squadron.core.job import Job
    from squadron.core.run import Run
    from squadron.tune.sweep import Sweep, check, sweep

    job, config, default, profile = runner.resolve(options)
    folder = default if options.run else Folder(default.url.rpartition("/")[0]) / f"sweep-{default.name}"
    spec = make_spec(job, config.model_dump(mode="json"), options)
    check(spec)
    trying = Job(f"sweep of {job.name}", Sweep, sweep, job.requires, None)
    asked = Sweep(sweep=spec, max_parallel=options.max_parallel)
    work = Run(trying.name, asked, folder, profile, options.address, runner.tracks(options))
    work.open()
    console.say(f"[bold]{trying.name}[/bold] in {console.plain(str(folder))}")
    try:
        report = runner.execute(trying, work)
    finally:
        work.close()
    runner.print_summary(work, report)
    console.say(f"Next:   squadron run {options.job} {console.plain(folder.file('best.yaml'))}")
    if job.services is not None:
        console.say(f"Next:   squadron serve {console.plain(winner_folder(work))}")


def winner_folder(work: Run) -> str:
    """The run folder of the best trial of a sweep that has ended."""
    from squadron.core.marker import read_marker

    best = read_marker(work.stages[-1].folder).output["trial"]
    return work.folder.file(f"trials/{best}")


def make_spec(job: Job, base: dict[str, Any], options: argparse.Namespace) -> SweepSpec:
    """The sweep that is asked for. Raises ConfigError for a metric that the job does not have, or for anything else
    wrong on the command line."""
    from squadron.core.assignments import check_overlap, split_words
    from squadron.core.config import from_values
    from squadron.core.errors import ConfigError, suggest
    from squadron.tune.space import describe_contents, grid_size, parse_space
    from squadron.tune.spec import SweepSpec

    metric = options.metric or next(iter(job.metrics), None)
    if metric is None or (metric not in job.metrics and options.goal is None):
        what = f"{job.name} has no metric {metric!r}" if metric else f"{job.name} names no metric"
        known = ", ".join(job.metrics)
        fix = f"{suggest(metric or '', job.metrics)} ({known}); for another that its stages log, say --goal too"
        raise ConfigError(what, where="--metric", fix=fix)
    space = parse_space(options.over, job.config_type)
    check_overlap([*split_words([word for word in options.settings if "=" in word]), *space], "command line and --over")
    varied = any(domain.kind != "grid" for domain in space.values())
    trials = options.trials if options.trials is not None else 12 if varied else grid_size(space)
    over = {key: text for key, _, text in (word.partition("=") for word in options.over)}
    asked = {
        "job": options.job, "base": base, "over": over, "contents": describe_contents(space, job.config_type, base),
        "metric": metric, "goal": options.goal or job.metrics[metric], "trials": trials, "search": options.search,
        "scheduler": options.scheduler, "grace": options.grace, "perturb_every": options.perturb_every,
        "seed": options.sweep_seed,
    }  # fmt: skip
    return from_values(SweepSpec, asked, {}, "")
