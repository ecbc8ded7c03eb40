"""What a self-rewarding run needs, from its configuration alone."""

from __future__ import annotations

from collections.abc import Sequence

from squadron.core.profile import Profile
from squadron.methods.self_rewarding.config import SelfRewardingConfig

STEPS = 4
"""Steps of a solution, assumed for planning where the small world does not say."""


def estimate(config: SelfRewardingConfig, workers: int, profile: Profile) -> Sequence[tuple[str, str]]:
    """Rows for `squadron plan`: models, data, what each round asks at the most, and how much is trained."""
    rounds, world = config.rounds, config.world
    rows = [
        ("base model, M0", config.base or f"a small one, trained here: {_parameters(config):,} parameters"),
        ("problems of the rounds", _problems(config)),
        ("instruction and evaluation data", _lessons(config)),
        ("models", f"M0 to M{len(rounds.questions) + 1}"),
    ]
    steps = STEPS if config.base else world.most_steps
    width = rounds.search.width
    for number, count in enumerate(rounds.questions, 2):
        most = count * rounds.search.max_iterations
        usual = count * steps
        asked = f"{usual * width:,} proposals and up to {usual * width * (width - 1):,} judgements"
        rows.append((f"M{number} asks", f"{count:,} problems: about {asked}, never more than {most:,} iterations"))
    sft, dpo = config.tuning, rounds.training
    rows.append(("M1 trains", f"{sft.epochs:g} passes, batches of {sft.batch_size}, ZeRO {sft.sharding.zero}"))
    rows.append(("each round trains", f"{dpo.epochs:g} passes, batches of {dpo.batch_size}, ZeRO {dpo.sharding.zero}"))
    rows.append(("asked by", _asked_by(config)))
    return rows


def _parameters(config: SelfRewardingConfig) -> int:
    """Of the small model: embeddings, and in each layer four projections, a gated network and two norms."""
    world = config.world
    hidden, inner = world.hidden_size, world.size.intermediate_size
    layer = 4 * hidden * hidden + 3 * hidden * inner + 2 * hidden
    return world.vocabulary * hidden + world.layers * layer + hidden


def _problems(config: SelfRewardingConfig) -> str:
    count = f"{sum(config.rounds.questions):,}"
    return f"{count} of {config.problems.path}" if config.problems else f"{count} of the small world"


def _lessons(config: SelfRewardingConfig) -> str:
    world, judging = config.world, config.judging
    if config.instruction.path is None:
        return f"{world.solutions:,} solutions and {world.contests:,} judged pairs of the small world"
    split = f", split by {config.instruction.splitter.name}" if config.instruction.splitter else ""
    if judging.path is not None:
        return f"solutions of {config.instruction.path}{split}; judged pairs of {judging.path}"
    searched = f"{judging.problems:,} problems, {judging.search.iterations} simulations each"
    return f"solutions of {config.instruction.path}{split}; judged pairs by tree search over {searched}"


def _asked_by(config: SelfRewardingConfig) -> str:
    if config.generation.provider == "vllm":
        cards = config.generation.gpus
        return f"vLLM, {cards} card{'s' if cards > 1 else ''} a worker; workers end before training takes the cards"
    return "transformers, as many workers as fit; they end before training starts"
