"""A round of self-rewarding: the model proposes steps, or whole solutions, judges them itself, and is optimised on what
it preferred."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

from squadron.core import console
from squadron.core.errors import InputError
from squadron.core.job import estimated
from squadron.core.run import Stage
from squadron.data.rows import RowsFile, store_lines
from squadron.llm.batch.programs import Program, run_programs
from squadron.llm.providers import check_models
from squadron.llm.settings import AnyModel
from squadron.methods.self_rewarding import algorithm, figures, plan
from squadron.methods.self_rewarding.config import GenerationConfig, PromptsConfig, ProposalsConfig
from squadron.methods.self_rewarding.conversations import JUDGE, MODEL, Erring, Searched, Searcher, fail_searches
from squadron.methods.self_rewarding.records import Preferences, Sources
from squadron.methods.self_rewarding.scoring import Scored, Scorer
from squadron.methods.self_rewarding.tuning import open_settings, train_model
from squadron.train.models.artifact import ModelArtifact
from squadron.train.objectives.layout import PREFERENCE_TYPES
from squadron.train.spec import LoraSettings, TrainSpec
from squadron.train.tuning import Tuning, encode_rows

AskedT = TypeVar("AskedT", bound=Erring)

POSITION_WARNING = 0.9
"""From this share of contests decided by who is shown first, a judge is reported as one that sees positions only."""


@estimated(plan.asking)
def prefer_steps(
    stage: Stage,
    model: ModelArtifact,
    sources: Sources,
    number: int,
    prompts: PromptsConfig,
    config: ProposalsConfig,
    generation: GenerationConfig,
    seed: int,
) -> Preferences:
    """Let the model propose steps and judge them itself.

    Search the problems of round `number` (2 makes M2), and keep every preference between two steps.

    Rounds take the problems of the file in turn. Raises InputError if no preference comes of it: there is nothing to
    learn from then, and the reason is told.
    """
    asked = _of_round(stage, sources.training, number, config.questions)
    search = Searcher(prompts, config.search, config.proposing, config.judging, seed, _judge(config))
    searched = _ask(stage, model, asked, search, config, generation)
    rows = [
        {"id": row["id"], "question": row["question"], "steps": list(one.steps), "chosen": one.chosen,
         "rejected": one.rejected}
        for row in asked
        for one in searched[row["id"]].found.preferences
    ]  # fmt: skip
    kept = store_lines(stage, "preferences.jsonl", rows)
    ended = Counter[str](one.found.ended for one in searched.values())
    contests = figures.contests_of(searched.values())
    figures.show_search(stage, asked, searched, contests)
    _warn_of_bias(contests)
    if not rows:
        raise _no_preferences(model, searched.values(), contests, ended)
    return Preferences(
        **kept.model_dump(),
        problems=len(asked),
        finished=ended["finished"],
        dropped=ended["dropped"],
        unfinished=ended["iterations"],
    )


@estimated(plan.scoring)
def prefer_solutions(
    stage: Stage,
    model: ModelArtifact,
    sources: Sources,
    number: int,
    prompts: PromptsConfig,
    config: ProposalsConfig,
    generation: GenerationConfig,
    seed: int,
) -> Preferences:
    """Let the model propose whole solutions and score them itself: the baseline, SRLM.

    Of each problem of round `number`, the solution with the highest score is preferred to the one with the lowest;
    where all scores are equal, there is no preference.

    Raises InputError if no preference comes of it, with the reason.
    """
    asked = _of_round(stage, sources.training, number, config.questions)
    scorer = Scorer(prompts, config.scoring, seed, _judge(config))
    scored = _ask(stage, model, asked, scorer, config, generation)
    pairs = [(row, scored[row["id"]].pair) for row in asked]
    rows = [
        {"id": row["id"], "question": row["question"], "steps": [], "chosen": pair[0], "rejected": pair[1]}
        for row, pair in pairs
        if pair is not None
    ]
    kept = store_lines(stage, "preferences.jsonl", rows)
    figures.show_scoring(stage, asked, scored)
    if not rows:
        raise _no_pairs(model, scored.values())
    tied = sum(one.pair is None and one.answer is not None for one in scored.values())
    return Preferences(
        **kept.model_dump(),
        problems=len(asked),
        finished=len(rows),
        dropped=tied,
        unfinished=len(asked) - len(rows) - tied,
        whole=True,
    )


@estimated(plan.optimizing)
def optimize(
    stage: Stage,
    model: ModelArtifact,
    preferences: Preferences,
    number: int,
    prompts: PromptsConfig,
    beta: float,
    spec: TrainSpec,
    lora: LoraSettings | None,
) -> ModelArtifact:
    """Learn from the model's own preferences, by DPO: step-wise, or on whole solutions.

    The reference is the model that they came from.

    A row's prompt is the question and the steps before; its answers are one step each, without an end of sequence, as
    in Step-DPO. Whole solutions end as the template ends a turn. Rows of which one side has more than
    `spec.max_length` tokens are left out, and counted.
    """
    from squadron.train.objectives.language import DirectPreference

    records = preferences.lines(stage.run.folder)
    rows = encode_rows(
        stage,
        "rows.arrow",
        preference_rows(model.load_tokenizer(stage.run.folder), records, prompts, preferences.whole),
        spec,
        "rounds.training.max_length",
        PREFERENCE_TYPES,
    )
    objective = DirectPreference(beta, chunk=spec.loss_chunk)
    return train_model(stage, Tuning(f"M{number}", model, rows, spec, lora, objective, reference=True))


def preference_rows(
    tokenizer: Any, records: Sequence[dict[str, Any]], prompts: PromptsConfig, whole: bool = False
) -> Iterator[dict[str, Any]]:
    """Preferences as token ids: the steps so far, and one step of each side; only `whole` solutions have an end."""
    from squadron.train.text.conversations import encode_answers, prompt_text, token_ids
    from squadron.train.text.fitting import pair_row

    for record in records:
        asked = algorithm.solve_messages(prompts.solve, record["question"])
        sides = record["chosen"], record["rejected"]
        if whole:
            prompt, (chosen, rejected) = encode_answers(tokenizer, asked, sides)
        else:
            before = prompt_text(tokenizer, asked) + "".join(f"{step}\n" for step in record["steps"])
            prompt, chosen, rejected = (token_ids(tokenizer, text) for text in (before, *sides))
        yield pair_row(prompt, chosen, rejected)


def _judge(config: ProposalsConfig) -> str:
    return MODEL if config.judge is None else JUDGE


def _ask(
    stage: Stage,
    model: ModelArtifact,
    asked: Sequence[Mapping[str, Any]],
    program: Callable[[str, str], Program[AskedT]],
    config: ProposalsConfig,
    generation: GenerationConfig,
) -> dict[str, AskedT]:
    """What became of each problem of a round, by its id; those that lack a reply are failed rows."""
    programs = {row["id"]: partial(program, row["id"], row["question"]) for row in asked}
    models: dict[str, AnyModel] = {MODEL: open_settings(stage, model, generation)}
    if config.judge is not None:
        check_models([config.judge])
        models[JUDGE] = config.judge
    found = run_programs(stage, programs, models, timeout_s=generation.timeout_s)
    fail_searches(stage, found)
    return found


def _of_round(stage: Stage, problems: RowsFile, number: int, questions: Sequence[int]) -> list[dict[str, Any]]:
    """The problems of a round; the file begins anew where it is shorter than all rounds together."""
    rows = problems.lines(stage.run.folder)
    start, count = sum(questions[: number - 2]), questions[number - 2]
    return list(itertools.islice(itertools.cycle(rows), start, start + min(count, len(rows))))


def _warn_of_bias(contests: figures.Contests) -> None:
    """Tell of a judge that goes by who is shown first: both orders of its contests then say the same side."""
    if contests.both and contests.same_side / contests.both >= POSITION_WARNING:
        console.say(
            f"  [yellow]the judge named the same side in both orders of {contests.same_side:,} of {contests.both:,} "
            "contests: it goes by position, and such contests decide nothing[/yellow]"
        )


def _no_preferences(
    model: ModelArtifact, searched: Collection[Searched], contests: figures.Contests, ended: Mapping[str, int]
) -> InputError:
    told = [
        f"{ended['dropped']:,} of {len(searched):,} problems ended in a tie at their first step",
        f"{sum(one.cut_off for one in searched):,} proposals did not end a step",
        f"{contests.unreadable:,} of {contests.count:,} judgements gave no verdict",
        f"{contests.same_side:,} of {contests.both:,} contests named the same side in both orders",
    ]
    what = f"{model.name} has no preference between any two steps: {'; '.join(told)}"
    fix = "raise rounds.proposing.temperature if all candidates are alike, max_tokens if they are cut off"
    return InputError(what, where="rounds", fix=f"{fix}; see how {model.name} judges in its evaluation")


def _no_pairs(model: ModelArtifact, scored: Collection[Scored]) -> InputError:
    judgements = sum(one.judged for one in scored)
    told = [
        f"{sum(one.answer is not None for one in scored):,} of {len(scored):,} problems have solutions of equal scores",
        f"{sum(one.cut_off for one in scored):,} solutions were cut off",
        f"{sum(one.unreadable for one in scored):,} of {judgements:,} judgements gave no score",
    ]
    what = f"{model.name} has no preference between any two solutions: {'; '.join(told)}"
    fix = "raise rounds.scoring.proposing.temperature if all solutions are alike, max_tokens if they are cut off"
    return InputError(what, where="rounds", fix=f"{fix}; see how {model.name} judges in its evaluation")
