"""The steps of a FLAME run. Each reads like the paper's; the arithmetic is in `algorithm.py`, the worlds in `sim`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from squadron.core.config import Config
from squadron.core.errors import InputError
from squadron.core.folder import Folder
from squadron.core.job import estimated
from squadron.core.rows import map_rows
from squadron.core.run import Stage
from squadron.methods.flame import plan
from squadron.methods.flame.config import (
    BaselinesConfig,
    ChooseBy,
    DemosConfig,
    EvaluationConfig,
    FederationConfig,
    HomesConfig,
    RoundsConfig,
    StrategyConfig,
    TrainingConfig,
)
from squadron.methods.flame.records import (
    Demos,
    Experiments,
    Federated,
    Homes,
    Policies,
    Policy,
    PolicyScores,
    Shard,
    Shards,
    Specs,
)


def build_homes(stage: Stage, config: HomesConfig) -> Homes:
    """Draw one simulated environment for every client and every held-out home."""
    from squadron.sim.manipulation.spec import EVAL, TEST, TRAIN, sample_environment

    train, evaluation, test = TRAIN[: config.clients], EVAL[: config.eval_homes], TEST[: config.test_homes]
    specs = {n: sample_environment(config.task, n, config.seed, config.factors) for n in (*train, *evaluation, *test)}
    stage.folder.write_json("homes.json", Specs(specs=specs).model_dump(mode="json"))
    stage.headline("homes that train", str(len(train)))
    apart = {"train": tuple(train), "eval": tuple(evaluation), "test": tuple(test)}
    return Homes.made(stage, "homes.json", task=config.task, **apart)


@estimated(plan.demonstrations)
def collect_demos(stage: Stage, homes: Homes, config: DemosConfig) -> Demos:
    """Let a scripted expert demonstrate the task in every home; one Parquet shard a home."""
    from squadron.core.panels import Images
    from squadron.methods.flame import evaluation, figures
    from squadron.methods.flame.simulation import collect_home

    run_folder, folder = stage.run.folder, stage.folder / "shards"
    place: dict[str, Any] = {"folder": folder, "run_folder": run_folder, "timeout_s": config.timeout_s}
    train = _import_recordings(stage, config, place) if config.recordings else []
    specs, held_out = homes.specs(run_folder), (*homes.eval, *homes.test)
    rows = [
        {
            "id": str(n),
            "spec": specs[n].model_dump(mode="json"),
            "episodes": config.held_out_per_home if n in held_out else config.per_home,
        }
        for n in (*(() if config.recordings else homes.train), *held_out)
    ]
    answers = map_rows(stage, rows, collect_home, unit="home", config=config, **place)
    shards = [*train, *(Shard.model_validate(answer) for answer in answers)]
    train = train or [shard for shard in shards if shard.client_id in homes.train]
    rest = [shard for shard in shards if shard not in train]
    if not train:
        fix = "`squadron report` shows each home's error"
        raise InputError("no home has demonstrations", where=str(stage.folder), fix=fix)
    listing = Shards(train=tuple(train), held_out=tuple(rest))
    stage.folder.write_json("shards.json", listing.model_dump(mode="json"))
    attempts, kept = sum(s.attempts for s in shards), sum(s.episodes for s in shards)
    stage.headline("expert success", f"{kept / attempts:.1%}")
    stage.folder.write_bytes("homes.png", evaluation.picture_of_homes(run_folder, train))
    stage.show(Images(title="Some of the homes, as the robot sees them", files=["homes.png"], captions=[""]))
    stage.show(figures.demonstrations(train, rest))
    steps = sum(s.steps for s in train)
    return Demos.made(stage, "shards.json", image_size=config.image_size, clients=len(train), steps=steps)


def _import_recordings(stage: Stage, config: DemosConfig, place: dict[str, Any]) -> list[Shard]:
    """The user's own shards, each a client. Raises InputError if there is none, or one cannot be used."""
    from squadron.methods.flame.demos import import_recording

    source = Folder(str(config.recordings))
    names = [name for name in source.ls() if name.endswith(".parquet") and not name.startswith(".")]
    if not names:
        raise InputError("no Parquet files here", where=str(source), fix="set demos.recordings to a folder of shards")
    rows = [{"id": name, "name": name, "folder": source.url, "client_id": n} for n, name in enumerate(names)]
    answers = map_rows(stage, rows, import_recording, unit="recording", image_size=config.image_size, **place)
    if failures := stage.failures():
        first = failures[0]["error"].splitlines()[0]
        what = f"{len(failures)} of {len(names)} recordings cannot be used; the first: {first}"
        raise InputError(what, where=source.file(failures[0]["item"]), fix="fix these files or take them away")
    return [Shard.model_validate(answer) for answer in answers]


@estimated(plan.rounds)
def federate(
    stage: Stage, demos: Demos, training: TrainingConfig, strategy: StrategyConfig, config: FederationConfig
) -> Federated:
    """Teach one policy by rounds of visits to the homes, whose data stay where they are."""
    from squadron.evaluate.panels import step_curves
    from squadron.methods.flame import federation

    shards = demos.shards(stage.run.folder).train
    result = federation.run_rounds(stage, shards, demos.image_size, training, strategy, config)
    stage.restore_metrics(federation.metrics(result.history))
    failures = federation.failures(result)
    for number, failure in failures:
        client = shards[failure.client].client_id
        stage.fail(
            f"client {client}, round {number}, {failure.phase}",
            f"{failure.cause}: {failure.message}",
            retry=False,
        )
    shown = {"loss": "training", "validation_loss": "validation, sampled clients"}
    stage.show(step_curves("Loss by round", stage.metrics(), shown, x_label="round", y_label="mean squared error"))
    return Federated(candidates=federation.candidates(stage, demos.image_size), failed_visits=len(failures))


def choose_round(
    stage: Stage, rounds: Federated, homes: Homes, demos: Demos, config: EvaluationConfig, choose_by: ChooseBy
) -> Policy:
    """Try every kept round in the held-out evaluation homes and choose the best."""
    from squadron.methods.flame import evaluation, figures

    if choose_by == "error":
        found = evaluation.measure_policies(stage, rounds.candidates, homes.eval, homes, demos, config)
        errors = figures.errors(found)
        stage.show(figures.error_by_round(rounds.candidates, errors))
        best = min(rounds.candidates, key=lambda one: (errors[one.name], -(one.round or 0)))
        stage.headline("chosen round, by its error", str(best.round))
        stage.measure(rmse=errors[best.name])
        return best
    found = evaluation.evaluate_policies(stage, rounds.candidates, homes.eval, homes, demos, config)
    scores = figures.score(found)
    for panel in figures.by_round(rounds.candidates, scores):
        stage.show(panel)
    best = max(rounds.candidates, key=lambda one: (scores[one.name].mean, -scores[one.name].rmse, one.round))
    stage.headline("chosen round", str(best.round))
    stage.measure(success=scores[best.name].mean, rmse=scores[best.name].rmse)
    return best


def train_baselines(
    stage: Stage,
    demos: Demos,
    training: TrainingConfig,
    federation: RoundsConfig,
    config: BaselinesConfig,
) -> Policies:
    """Train what the federation is compared with, at the same number of optimisation steps."""
    from squadron.evaluate.panels import loss_curves
    from squadron.methods.flame.baselines import steps_of_a_round, train_alone

    shards = demos.shards(stage.run.folder).train
    steps = steps_of_a_round(training, federation, 0.9 * demos.steps / len(shards))
    visits = federation.rounds * federation.clients_per_round / len(shards)
    common = {"rounds": federation.rounds, "steps": steps}
    pooled = [{"id": "centralised", "shards": _plain(shards), **common}] if config.centralised else []
    alone = [
        {
            "id": f"local-{s.client_id:03d}",
            "shards": _plain([s]),
            "rounds": max(1, round(visits)),
            "steps": max(1, steps // federation.clients_per_round),
        }
        for s in shards[: config.local_only]
    ]
    arguments: dict[str, Any] = {
        "folder": stage.folder, "run_folder": stage.run.folder,
        "image_size": demos.image_size, "training": training, "seed": federation.seed,
        "timeout_s": config.timeout_s, "unit": "policy",
    }  # fmt: skip
    # The longest first, beside the others: on one core, since threads that wait for each other at every layer of so
    # small a network take many times as long wherever something else runs.
    answers = map_rows(stage, [*pooled, *alone], train_alone, **arguments) if pooled or alone else []
    if answers:
        losses = {answer["policy"]["name"]: answer["losses"] for answer in answers}
        words = {"x_label": "rounds' worth of steps", "y_label": "mean squared error"}
        stage.show(loss_curves("Baselines' loss", losses, **words))
    return Policies(policies=tuple(Policy.model_validate(answer["policy"]) for answer in answers))


def evaluate(
    stage: Stage,
    chosen: Sequence[Policy],
    names: Sequence[str],
    others: Policies,
    homes: Homes,
    demos: Demos,
    config: EvaluationConfig,
) -> PolicyScores:
    """Measure the chosen policies and their baselines in homes that nobody has seen, and film the best at work."""
    from squadron.evaluate.panels import headline
    from squadron.methods.flame import evaluation, figures

    ours = [policy.model_copy(update={"name": name}) for policy, name in zip(chosen, names, strict=True)]
    found = evaluation.evaluate_policies(stage, (*ours, *others.policies), homes.test, homes, demos, config)
    scores = figures.score(found)
    for name in names:
        of = f", {homes.task}, {name}" if len(names) > 1 else ""
        headline(stage, f"success on unseen homes{of}", scores[name], ".0%")
        stage.headline(f"RMSE on unseen homes{of}", f"{scores[name].rmse:.4f}")
    stage.show(figures.comparison(homes.task, scores.values()))
    if config.film_homes:
        best = max(ours, key=lambda policy: scores[policy.name].mean)
        stage.show(evaluation.film_policy(stage, best, homes, config))
    stage.show(figures.success_by_home(found))
    return PolicyScores(task=homes.task, scores=tuple(scores.values()))


def tabulate(stage: Stage, tasks: Sequence[PolicyScores]) -> Experiments:
    """Put all tasks and strategies into one table."""
    from squadron.methods.flame import figures

    stage.show(figures.all_tasks(tasks))
    return Experiments(tasks=tuple(tasks))


def _plain(records: Sequence[Config]) -> list[dict[str, Any]]:
    return [record.model_dump(mode="json") for record in records]
