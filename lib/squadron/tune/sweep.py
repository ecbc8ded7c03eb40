"""A sweep: trials of a job with different settings, by Ray Tune, and the best of them."""

from __future__ import annotations

import logging
import os
import tempfile
import uuid
import warnings
from typing import Any

from squadron.core import console, registry
from squadron.core.config import Config, fingerprint, from_values, to_yaml
from squadron.core.errors import WorkerError
from squadron.core.folder import Folder
from squadron.core.run import Stage
from squadron.tune import figures
from squadron.tune.partition import Share, partition
from squadron.tune.space import Space, check_space, parse_space, sample
from squadron.tune.spec import Record, SweepSpec, Winner
from squadron.tune.trial_store import TrialStore

_TUNE_SETTINGS = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # a trial keeps its own metrics
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # an interrupt ends the sweep, and leaves all that is done
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    "RAY_AIR_NEW_OUTPUT": "0",
}


class Sweep(Config):
    """The configuration of a sweep. `max_parallel` and the size of a worker stand apart: they decide no result."""

    sweep: SweepSpec
    max_parallel: int | None = None


def sweep(run: Any, config: Sweep) -> None:
    """The recipe: one stage, with one run for each trial."""
    run.stage(try_settings, config.sweep)


def space_of(spec: SweepSpec) -> Space:
    """What a sweep varies."""
    model = registry.load_job(spec.job).config_type
    return parse_space([f"{key}={text}" for key, text in spec.over.items()], model)


def check(spec: SweepSpec) -> None:
    """Raise ConfigError for a setting or value that the job's configuration refuses, before anything starts; of
    settings that are drawn beforehand, for each combination."""
    job, space = registry.load_job(spec.job), space_of(spec)
    check_space(space, job.config_type, spec.base)
    if spec.search == "random":
        for number in range(spec.trials):
            settings = sample(space, number, spec.seed)
            shown = ", ".join(f"{key}={value}" for key, value in settings.items())
            from_values(job.config_type, spec.base, settings, where=f"trial {number}: {shown}")


def try_settings(stage: Stage, spec: SweepSpec) -> Winner:
    """Try settings, one run of the job each, and keep the best."""
    space = space_of(spec)
    trial_store = TrialStore(
        stage.run.folder,
        fingerprint([spec.job, spec.base, spec.contents, spec.over, spec.search, spec.metric, spec.seed]),
    )
    asked = stage.run.config
    assert isinstance(asked, Sweep)
    shares = partition(stage.claim_cluster().nodes, stage.run.profile, asked.max_parallel)
    say_start(spec, shares)
    _run_trials(stage, spec, space, trial_store, shares)
    records = {
        name: record
        for name in trial_store.begun()
        if (record := trial_store.read(name)) and record.number < spec.trials
    }
    for name, record in records.items():
        if record.status == "failed":
            stage.fail(f"trial {name}", record.error)
    winner = _choose(spec, records)
    job = registry.load_job(spec.job)
    best = from_values(job.config_type, spec.base, winner.settings)
    stage.run.folder.write_bytes("best.yaml", to_yaml(best).encode())
    figures.show(stage, spec, space, records, {name: trial_store.curve(name) for name in records}, winner)
    return winner


def say_start(spec: SweepSpec, shares: list[Share | None]) -> None:
    """Say how many trials run at a time, and on what."""
    count = len(shares)
    share = "the whole cluster" if shares[0] is None else f"{sum(node.cpus for node in shares[0]):g} CPUs"
    if shares[0] is not None and (gpus := sum(node.gpus for node in shares[0])):
        share += f" and {gpus:g} GPUs"
    console.say(f"[dim]{spec.trials} trials, {count} at a time, each on {share}[/dim]")


def _run_trials(
    stage: Stage, spec: SweepSpec, space: Space, trial_store: TrialStore, shares: list[Share | None]
) -> None:
    """Let Ray Tune run all trials. The result of each is in its record."""
    os.environ |= _TUNE_SETTINGS
    for noisy in ("ray.tune", "ray.train", "ray.air"):
        logging.getLogger(noisy).setLevel(logging.CRITICAL)
    warnings.filterwarnings("ignore", "Consider boosting PBT")  # trials have processes of their own
    from ray import tune

    from squadron.core.ray_data import ray_storage
    from squadron.tune.progress_callback import ProgressCallback
    from squadron.tune.search import Suggestions, listed, make_scheduler
    from squadron.tune.trial import NAME, Trials, follow

    trials = Trials(spec, trial_store, stage.run.profile, tuple(shares), stage.run.track, uuid.uuid4().hex, os.getcwd())
    with tempfile.TemporaryDirectory() as scratch:
        # One byte, since Ray Tune wants a trial to take something: what its job takes is counted by its share.
        work = tune.with_resources(tune.with_parameters(follow, trials=trials), {"memory": 1})
        storage = ray_storage(trial_store.folder if spec.scheduler == "pbt" else Folder(scratch))
        adaptive = spec.search == "optuna"
        tuner = tune.Tuner(
            work,
            param_space=None if adaptive else listed(spec, space, trial_store),
            tune_config=tune.TuneConfig(
                metric=spec.metric,
                mode=spec.goal,
                search_alg=Suggestions(spec, space, trial_store) if adaptive else None,
                scheduler=make_scheduler(spec, space),
                num_samples=spec.trials if adaptive else 1,
                max_concurrent_trials=len(shares),
                trial_name_creator=lambda trial: trial.config[NAME],
                # Its process starts anew for each trial all the same. A trial that a scheduler ends may not be at a
                # place where Ray Tune could take over its actor.
                reuse_actors=spec.scheduler == "none",
            ),
            run_config=tune.RunConfig(
                name=".tune",
                **storage,
                verbose=0,
                callbacks=[ProgressCallback(spec, trial_store)],
                failure_config=tune.FailureConfig(max_failures=2),
            ),
        )
        try:
            tuner.fit()
        finally:
            if spec.scheduler == "pbt":
                trial_store.folder.remove(".tune")


def _choose(spec: SweepSpec, records: dict[str, Record]) -> Winner:
    """The finished trial with the best value, the first of equals. Raises WorkerError if none has finished."""
    counts = {status: sum(one.status == status for one in records.values()) for status in ("stopped", "failed")}
    finished = {name: one for name, one in records.items() if one.status == "finished" and one.value is not None}
    if not finished:
        error = next((one.error for one in records.values() if one.error), "")
        raise WorkerError(
            f"none of {len(records)} trials finished; the first error: {error}",
            fix="fix the cause and give the same command again",
        )
    sign = 1 if spec.goal == "max" else -1
    name = max(finished, key=lambda name: sign * (finished[name].value or 0.0))
    best = finished[name]
    assert best.value is not None
    return Winner(trial=name, settings=best.settings, value=best.value, finished=len(finished), **counts)
