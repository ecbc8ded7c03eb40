"""Which settings are tried next, and which trials continue: Ray Tune's searchers and schedulers for a sweep."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from ray import tune
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, PopulationBasedTraining, TrialScheduler
from ray.tune.search import Searcher
from ray.tune.search.optuna import OptunaSearch

from squadron.tune.space import Domain, Settings, Space, sample
from squadron.tune.spec import Record, SweepSpec
from squadron.tune.trial import NAME
from squadron.tune.trial_store import TrialStore

_NEVER = 10**9


def listed(spec: SweepSpec, space: Space, trial_store: TrialStore) -> dict[str, Any]:
    """Ray Tune's parameter space of settings that are drawn beforehand: one trial after the other. The settings of one
    are a function of its number and the seed, so that a sweep which resumes, or is given more trials, finds those that
    it had."""
    drawn = [sample(space, number, spec.seed) for number in range(spec.trials)]
    named = {trial_store.name(number, settings): settings for number, settings in enumerate(drawn)}
    for name, settings in named.items():
        trial_store.propose(name, settings)
    values = {key: tune.sample_from(partial(_setting, named, key)) for key in space}
    done = finished(spec, trial_store)
    return {NAME: tune.grid_search([name for name in named if name not in done]), **values}


def finished(spec: SweepSpec, trial_store: TrialStore) -> dict[str, Record]:
    """Trials of an earlier start that need not be run. A scheduler that compares running trials has to see them again:
    they report what they did."""
    records = {name: trial_store.read(name) for name in trial_store.begun()} if spec.scheduler == "none" else {}
    return {name: one for name, one in records.items() if one is not None and one.status == "finished"}


def _setting(named: dict[str, Settings], key: str, spec: Any) -> Any:
    return named[spec.config[NAME]][key]


class Suggestions(Searcher):
    """Settings that Optuna chooses by the results of earlier trials, each with its trial's name. After a restart,
    trials that had started come first."""

    def __init__(self, spec: SweepSpec, space: Space, trial_store: TrialStore) -> None:
        import optuna

        super().__init__(metric=spec.metric, mode=spec.goal)
        begun, done = trial_store.begun(), finished(spec, trial_store)
        self._trials, self._store, self._count = spec.trials, trial_store, len(begun)
        self._names: dict[str, str] = {}
        self._again = [name for name in begun if name not in done]
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._optuna = OptunaSearch(
            space={key: distribution(domain) for key, domain in space.items()},
            metric=spec.metric,
            mode=spec.goal,
            points_to_evaluate=[begun[name] for name in self._again] or None,
            sampler=optuna.samplers.TPESampler(seed=spec.seed + len(begun)),
        )
        for one in done.values():
            self._optuna.add_evaluated_point(one.settings, one.value)  # type: ignore[arg-type]

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        """Ray Tune's configuration of a trial: its settings, and its name."""
        if not self._again and self._count >= self._trials:
            return Searcher.FINISHED  # type: ignore[return-value]
        settings = dict(self._optuna.suggest(trial_id) or {})
        if self._again:
            name = self._again.pop(0)
        else:
            name = self._store.name(self._count, settings)
            self._store.propose(name, settings)
            self._count += 1
        self._names[trial_id] = name
        return {NAME: name, **settings}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """A value on the way."""
        self._optuna.on_trial_result(trial_id, result)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """A value at the end, or none: that of a trial that failed on its way says nothing."""
        record = self._store.read(self._names[trial_id])
        failed = error or record is None or record.status == "failed"
        self._optuna.on_trial_complete(trial_id, None if failed else result, failed)

    def save(self, checkpoint_path: str) -> None:
        """Nothing to do: the trial store has it."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing to do: the trial store has it."""


def make_scheduler(spec: SweepSpec, space: Space) -> TrialScheduler:
    """Successive halving (Li et al. 2020), population-based training (Jaderberg et al. 2017), or first come, first
    served."""
    match spec.scheduler:
        case "asha":
            return ASHAScheduler(grace_period=spec.grace, reduction_factor=spec.reduction, max_t=_NEVER)
        case "pbt":
            rng = np.random.default_rng([spec.seed, spec.trials])
            return PopulationBasedTraining(
                time_attr="training_iteration",
                perturbation_interval=spec.perturb_every,
                hyperparam_mutations={key: _mutation(domain, rng) for key, domain in space.items()},
                custom_explore_fn=_within(space),
            )
    return FIFOScheduler()


def distribution(domain: Domain) -> Any:
    """The domain in Optuna's terms."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if domain.is_listed:
        return CategoricalDistribution(domain.values)
    low, high = domain.values
    return (IntDistribution if domain.is_whole else FloatDistribution)(low, high, log=domain.is_log)


def _mutation(domain: Domain, rng: np.random.Generator) -> list[Any] | Callable[[], Any]:
    return list(domain.values) if domain.is_listed else lambda: domain.draw(rng)


def _within(space: Space) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """What a change by a factor makes of settings, kept between their ends."""

    def clip(config: dict[str, Any]) -> dict[str, Any]:
        ranges = {key: domain for key, domain in space.items() if not domain.is_listed and key in config}
        clipped = {key: min(max(config[key], domain.values[0]), domain.values[1]) for key, domain in ranges.items()}
        return config | {key: round(value) if space[key].is_whole else value for key, value in clipped.items()}

    return clip
