"""What a self-rewarding run needs, from its configuration alone."""

from __future__ import annotations

from collections.abc import Sequence

from squadron.core.profile import Profile
from squadron.methods.self_rewarding.config import SelfRewardingConfig
from squadron.train.spec import TrainSpec

STEPS = 4
"""Steps of a solution, assumed for planning where the small world does not say."""


Rows = Sequence[tuple[str, str]]


def data(config: SelfRewardingConfig, workers: int, profile: Profile) -> Rows:
    """Problems, solutions and judged pairs."""
    return [("problems of the rounds", _problems(config)), ("instruction and evaluation data", _lessons(config))]


def base_model(config: SelfRewardingConfig, workers: int, profile: Profile) -> Rows:
    """M0, and how many models follow."""
    small = f"a small one, trained here: {_parameters(config):,} parameters"
    return [("base model, M0", config.base or small), ("models", f"M0 to M{len(config.rounds.questions) + 1}")]


def tuning(config: SelfRewardingConfig, workers: int, profile: Profile) -> Rows:
    """How M1 is trained."""
    return [("M1 trains", _training(config.tuning))]


def asking(config: SelfRewardingConfig, workers: int, profile: Profile) -> Rows:
    """What each round asks at most, and by what."""
    rounds = config.rounds
    steps, width = STEPS if config.base else config.world.most_steps, rounds.search.width
    rows = []
    for number, count in enumerate(rounds.questions, 2):
        usual, most = count * steps, count * rounds.search.max_iterations
        asked = f"{usual * width:,} proposals and up to {usual * width * (width - 1):,} judgements"
        rows.append((f"M{number} asks", f"{count:,} problems: about {asked}, never more than {most:,} iterations"))
    return [*rows, ("asked by", _asked_by(config))]


def scoring(config: SelfRewardingConfig, workers: int, profile: Profile) -> Rows:
    """What each round of scored solutions asks, and by what."""
    rounds = config.rounds
    rows = []
    for number, count in enumerate(rounds.questions, 2):
        solutions = count * rounds.scoring.candidates
        asked = f"{solutions:,} solutions and up to {solutions * rounds.scoring.judgements:,} judgements"
        rows.append((f"M{number} asks", f"{count:,} problems: {asked}"))
    return [*rows, ("asked by", _asked_by(config))]


def optimizing(config: SelfRewardingConfig, workers: int, profile: Profile) -> Rows:
    """How each round is trained."""
    return [("each round trains", _training(config.rounds.training))]


def _training(spec: TrainSpec) -> str:
    return f"{spec.epochs:g} passes, batches of {spec.batch_size}, ZeRO {spec.sharding.zero}"


def _parameters(config: SelfRewardingConfig) -> int:
    """Of the small model: embeddings, and in each layer four projections, a gated network and two norms."""
    world = config.world
    hidden, inner = world.hidden_size, world.model.intermediate_size
    layer = 4 * hidden * hidden + 3 * hidden * inner + 2 * hidden
    return world.vocabulary * hidden + world.layers * layer + hidden


def _problems(config: SelfRewardingConfig) -> str:
    count = f"{sum(config.rounds.questions):,}"
    return f"{count} of {config.problems.path}" if config.problems else f"{count} of the small world"


def _lessons(config: SelfRewardingConfig) -> str:
    world, judging = config.world, config.judging
    what = "judged pairs" if config.rewarding == "process" else "scored solutions"
    if config.instruction.path is None:
        return f"{world.solutions:,} solutions and {world.contests:,} {what} of the small world"
    split = f", split by {config.instruction.splitter.name}" if config.instruction.splitter else ""
    if judging.path is not None:
        return f"solutions of {config.instruction.path}{split}; {what} of {judging.path}"
    searched = f"by tree search over {judging.problems:,} problems, {judging.search.iterations} simulations each"
    if config.rewarding == "outcome":
        searched = f"of {judging.problems:,} problems, the best and the worst of {judging.scoring.candidates} each"
    return f"solutions of {config.instruction.path}{split}; {what} {searched}"


def _asked_by(config: SelfRewardingConfig) -> str:
    if config.generation.provider == "vllm":
        cards = config.generation.gpus
        return f"vLLM, {cards} card{'s' if cards > 1 else ''} a worker; workers end before training takes the cards"
    return "transformers, as many workers as fit; they end before training starts"
