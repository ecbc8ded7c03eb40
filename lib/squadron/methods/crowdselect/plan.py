"""What a CrowdSelect run needs, from its configuration alone."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from squadron.core.profile import Profile
from squadron.llm.rewards.settings import AnyReward, JudgeReward
from squadron.llm.settings import AnyModel, OpenAiModel
from squadron.methods.crowdselect.config import CrowdSelectConfig, PoolConfig
from squadron.methods.crowdselect.judging import ANSWER_TOKENS

PROMPT_TOKENS, RESPONSE_TOKENS = 500, 1000
"""Tokens of an instruction, and of a response that the pool brings along, assumed for planning."""
RUBRIC_TOKENS = 250
"""Tokens that a judge's question adds to what is judged, about."""
_COUNTED_BYTES = 100 * 10**6


@dataclass(frozen=True)
class _Asked:
    """A model, how many requests it answers for each instruction, and the tokens of one: given, and at most said.

    Where `held_out`, it is asked about the instructions that are kept out.
    """

    model: AnyModel
    requests: int
    prompt_tokens: int
    answer_tokens: int
    held_out: bool = False

    def usd(self, instructions: int) -> float:
        """What it costs at most, by the prices of its settings."""
        if not isinstance(self.model, OpenAiModel):
            return 0.0
        given = self.prompt_tokens * self.model.prompt_usd_per_million
        said = self.answer_tokens * self.model.completion_usd_per_million
        return instructions * self.requests * (given + said) / 10**6


Rows = Sequence[tuple[str, str]]


def instructions(config: CrowdSelectConfig, workers: int, profile: Profile) -> Rows:
    """How many instructions. Files of up to 100 MB are counted, others when they are read."""
    count, kept_out = _instructions(config)
    return [("instructions", "counted when read" if count is None else f"{count:,}, and {kept_out:,} kept out")]


def answers(config: CrowdSelectConfig, workers: int, profile: Profile) -> Rows:
    """Who answers, how often they are asked, and what all that is asked costs at most."""
    count, kept_out = _instructions(config)
    return [
        ("models that answer", _models(config)),
        ("requests to them", _requests(config, count)),
        ("spend at most", _spend(config, list(_asked(config, count)), count, kept_out)),
    ]


def training(config: CrowdSelectConfig, workers: int, profile: Profile) -> Rows:
    """How much is trained."""
    return _training(config, _instructions(config)[0])


def _instructions(config: CrowdSelectConfig) -> tuple[int | None, int]:
    """How many there are to choose from, and how many are kept out; None if that takes reading them."""
    pool = config.pool
    if pool.path is None:
        return config.world.pool, config.world.held_out
    if (lines := _count_lines(pool.path)) is None:
        return None, pool.held_out_most
    if pool.held_out_path is not None:
        return _limited(lines, pool), _count_lines(pool.held_out_path) or 0
    total = _limited(lines, pool)
    kept_out = min(pool.held_out_most, int(pool.held_out * total))
    return total - kept_out, kept_out


def _limited(lines: int, pool: PoolConfig) -> int:
    return lines if pool.limit is None else min(lines, pool.limit)


def _count_lines(path: str) -> int | None:
    """Lines of a local file that is small enough to be read now."""
    if not path.endswith((".jsonl", ".ndjson")) or not os.path.isfile(path) or os.path.getsize(path) > _COUNTED_BYTES:
        return None
    with open(path, "rb") as stream:
        return sum(1 for line in stream if line.strip())


def _models(config: CrowdSelectConfig) -> str:
    match config.pool.layout:
        case "responses":
            return "those whose responses the pool holds; none is asked"
        case "generator_zoo":
            return f"{len(config.models)}, whose responses the pool holds; none is asked"
    if not config.models:
        return f"{_crowd_size(config)} small ones by transformers, trained here or found in the cache"
    providers = Counter(model.provider for model in config.models)
    return ", ".join(f"{count} by {provider}" for provider, count in sorted(providers.items()))


def _crowd_size(config: CrowdSelectConfig) -> int:
    """How many models answer; one where only reading the pool tells."""
    if config.pool.layout == "responses":
        return 1
    return len(config.models) or sum(len(family.members) for family in config.world.families)


def _requests(config: CrowdSelectConfig, count: int | None) -> str:
    if config.pool.layout != "instructions":
        return "none"
    models, samples = _crowd_size(config), config.collect.samples
    each = f"{models} model{'s' if models > 1 else ''} × {samples} sample{'s' if samples > 1 else ''}"
    return f"{each} for each instruction" if count is None else f"{count:,} × {each} = {count * models * samples:,}"


def _asked(config: CrowdSelectConfig, count: int | None) -> Iterator[_Asked]:
    """Everything that is asked of a chat model."""
    asks, samples = config.pool.layout == "instructions", config.collect.samples
    said = config.collect.sampling.max_tokens if asks else RESPONSE_TOKENS
    if asks:
        yield from (_Asked(model, samples, PROMPT_TOKENS, said) for model in config.models)
    yield from _judges(config.reward, PROMPT_TOKENS + said, _crowd_size(config) * samples)
    if config.selection.judge is not None:
        given = {"tags": PROMPT_TOKENS, "direct_score": PROMPT_TOKENS + said}
        for arm in given.keys() & set(config.selection.arms):
            yield _Asked(config.selection.judge, 1, given[arm] + RUBRIC_TOKENS, ANSWER_TOKENS)
    if students := _students(config):
        reward = config.students.reward or config.reward
        answered = PROMPT_TOKENS + config.students.sampling.max_tokens
        yield from _judges(reward, answered, students + 1, held_out=True)


def _judges(reward: AnyReward, answered: int, requests: int, held_out: bool = False) -> Iterator[_Asked]:
    if isinstance(reward, JudgeReward):
        yield _Asked(reward.model, requests, answered + RUBRIC_TOKENS, reward.sampling.max_tokens, held_out)


def _spend(config: CrowdSelectConfig, asked: Sequence[_Asked], count: int | None, kept_out: int) -> str:
    priced = [one for one in asked if one.usd(1)]
    unpriced = sorted({one.model.name for one in asked if isinstance(one.model, OpenAiModel) and not one.usd(1)})
    limit = config.collect.cap_usd
    cap = "" if limit is None else f"; collect.cap_usd stops answers and scores together at {limit:,.2f} USD"
    free = f"; no price is set for {', '.join(unpriced)}" if unpriced else ""
    if not priced:
        return f"0 USD{free}"
    many = " and model of the pool" if config.pool.layout == "responses" else ""
    given = "" if config.pool.layout == "instructions" else f", the pool's responses {RESPONSE_TOKENS:,}"
    assumed = f"if instructions have {PROMPT_TOKENS} tokens{given} and every answer is as long as it may be"
    if count is None:
        each = sum(one.usd(1) for one in priced if not one.held_out)
        later = sum(one.usd(kept_out) for one in priced if one.held_out)
        marked = f" and {later:,.2f} USD for students" if later else ""
        return f"{each:,.4f} USD an instruction{many}{marked}, {assumed}{cap}{free}"
    total = sum(one.usd(kept_out if one.held_out else count) for one in priced)
    return f"{total:,.2f} USD{many.replace(' and', ' for each', 1)}, {assumed}{cap}{free}"


def _students(config: CrowdSelectConfig) -> int:
    """How many students are trained; none without a model to start from."""
    there = config.students.base is not None or config.pool.path is None
    return len(config.students.arms) * config.students.seeds if there else 0


def _training(config: CrowdSelectConfig, count: int | None) -> list[tuple[str, str]]:
    if not (students := _students(config)):
        return [("students", "none")]
    arms, seeds, spec = config.students.arms, config.students.seeds, config.students.training
    chosen = config.selection.count
    small = len([arm for arm in arms if arm != "everything"]) * seeds
    whole = f"{seeds} on everything" if "everything" in arms else ""
    rows = [
        (
            "students",
            f"{len(arms)} arm{'s' if len(arms) > 1 else ''} × {seeds} seed{'s' if seeds > 1 else ''} = {students}",
        )
    ]
    length = f"{spec.steps:,} steps each" if spec.steps else f"passes over them: {spec.epochs:g}"
    everything = whole and (f"{whole}, {count:,} examples" if count is not None else whole)
    parts = [f"{small} on {chosen:,} examples" if small else "", everything, length]
    return [*rows, ("training", ", ".join(filter(None, parts)))]
