"""Plans for every question: given ones, or by a model that is prompted, fine-tuned, or picks them out of the words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from squadron.core.config import Config
from squadron.core.errors import InputError
from squadron.core.job import estimated
from squadron.core.run import Stage
from squadron.data.rows import ArrowRows, store_rows, write_rows
from squadron.evaluate.panels import loss_curves
from squadron.llm.settings import AnyModel, HfModel, VllmModel
from squadron.methods.mor import extractive, plan
from squadron.methods.mor.planner_config import (
    AnyPlanner,
    ChatPlanner,
    ExtractivePlanner,
    GivenPlans,
    TrainedKinds,
    TunedPlanner,
)
from squadron.methods.mor.plans import Plan, PlanError, parse_plan
from squadron.methods.mor.prompts import plan_prompt
from squadron.methods.mor.records import PLAN_TYPES, Asked, Knowledge, Plans
from squadron.train.models.artifact import ModelArtifact
from squadron.train.spec import TrainSpec


class TrainedPlanner(Config):
    """A planner that has learned."""

    model: ModelArtifact


@estimated(plan.planner)
def train_planner(stage: Stage, knowledge: Knowledge, planner: TrainedKinds) -> TrainedPlanner:
    """Learn from the plans of the training questions.

    Raises InputError if they have none; else as training does.
    """
    asked = knowledge.asked(stage.run.folder, "train")
    if not any(one.plan for one in asked):
        fix = "give plans with the questions, or choose a planner that does not learn: chat"
        raise InputError(f"no training question has a plan for {planner.name} to learn from", where="planners", fix=fix)
    if isinstance(planner, ExtractivePlanner):
        return TrainedPlanner(model=_train_extractive(stage, asked, planner))
    return TrainedPlanner(model=_fine_tune(stage, asked, planner))


def plan_questions(stage: Stage, knowledge: Knowledge, planner: AnyPlanner, trained: TrainedPlanner | None) -> Plans:
    """Write a plan for every question. One that a model failed to write is a failed row, tried again by the next run;
    until then text alone answers."""
    asked = knowledge.asked(stage.run.folder)
    match planner:
        case GivenPlans():
            written: Sequence[str | None] = [one.plan for one in asked]
        case ExtractivePlanner():
            assert trained is not None
            opened = open_planner(stage.run.folder, trained)
            queries = [one.query for one in asked]
            written = list(extractive.predict_plans(opened, queries, planner.batch_size))
        case ChatPlanner():
            shown = [one for one in knowledge.asked(stage.run.folder, "train") if one.plan][: planner.examples]
            schema = knowledge.open_graph(stage.run.folder).schema
            prompts = [plan_prompt(one, schema, shown) for one in asked]
            written = _ask(stage, asked, prompts, planner.model, planner)
        case TunedPlanner():
            assert trained is not None
            model = _settings(stage, planner, trained.model)
            written = _ask(stage, asked, [one.query for one in asked], model, planner)
    rows = ({"id": one.id, "plan": text} for one, text in zip(asked, written, strict=True))
    return Plans(planner=planner.name, rows=store_rows(stage, "plans.arrow", rows, PLAN_TYPES))


def open_planner(run: Any, trained: TrainedPlanner) -> Any:
    """The encoder with heads of an extractive planner."""
    from squadron.train.heads import open_headed

    return open_headed(trained.model.locate(run))


def read_plan(text: str | None) -> Plan | None:
    """The plan of a training question; None where there is none."""
    try:
        return None if text is None else parse_plan(text)
    except PlanError as error:
        raise InputError(f"a plan that is given cannot be read: {error}", where=text or "") from None


def _train_extractive(stage: Stage, asked: Sequence[Asked], planner: ExtractivePlanner) -> ModelArtifact:
    from squadron.train.heads import find_headed, store_examples, tune_headed

    given = [(one.query, read_plan(one.plan)) for one in asked]
    shapes = tuple(dict.fromkeys(extractive.shape_of(one) for _, one in given))
    kinds = tuple(dict.fromkeys(kind for _, one in given if one is not None for kind in one.restriction))
    rows = list(extractive.examples(given))
    encoder = find_headed(
        labels=tuple(dict.fromkeys((extractive.NO_SHAPE, *shapes))),
        tags=(extractive.OUTSIDE, *kinds),
        path=None if planner.encoder is None else str(planner.encoder),
        max_length=planner.training.max_length,
        seed=planner.training.seed,
    )
    stored = store_examples(stage, "rows.arrow", rows, encoder)
    tuned = tune_headed(stage, "planner", encoder, stored, planner.training)
    losses = [step["loss"] for step in tuned.metrics if step["loss"] is not None]
    stage.show(loss_curves(f"Training loss of {planner.name}", {planner.name: losses}))
    unmarked = sum(row["tags"] is None for row in rows)
    stage.headline(f"shapes of plans that {planner.name} knows", str(len(shapes)))
    stage.headline("plans whose descriptions do not stand in the question", f"{unmarked:,} of {len(rows):,}")
    return tuned.model


def _fine_tune(stage: Stage, asked: Sequence[Asked], planner: TunedPlanner) -> ModelArtifact:
    from squadron.train.models.base import find_model
    from squadron.train.tuning import Tuning, encode_rows, tune

    base = find_model(str(planner.base), "the planner's base model", chats=True, name=planner.name)
    spec: TrainSpec = planner.training
    rows = _conversations(base.load_tokenizer(stage.run.folder), asked)
    encoded = encode_rows(stage, "rows.arrow", rows, spec, "training.max_length")
    (tuned,) = tune(stage, [Tuning("planner", base, encoded, spec, planner.lora)])
    stage.show(loss_curves(f"Training loss of {planner.name}", {planner.name: tuned.losses}))
    return tuned.model


def _conversations(tokenizer: Any, asked: Sequence[Asked]) -> Iterator[dict[str, Any]]:
    """The bare question, and the plan as the answer, which alone is learned."""
    from squadron.train.text.conversations import encode_conversation

    for one in asked:
        if one.plan is not None:
            messages = [{"role": "user", "content": one.query}, {"role": "assistant", "content": one.plan}]
            yield encode_conversation(tokenizer, messages)


def _settings(stage: Stage, planner: TunedPlanner, model: ModelArtifact) -> AnyModel:
    path, name = model.locate(stage.run.folder), planner.name
    if planner.provider == "vllm":
        return VllmModel.model_validate({"name": name, "path": path, "rehearsed": planner.rehearsed})
    return HfModel.model_validate({"name": name, "path": path, "rehearsed": planner.rehearsed})


def _ask(
    stage: Stage, asked: Sequence[Asked], prompts: Sequence[str], model: AnyModel, planner: ChatPlanner | TunedPlanner
) -> list[str | None]:
    from squadron.llm.batch.collect import QUESTION_TYPES, collect, read_answers

    rows = ({"id": one.id, "instruction": prompt} for one, prompt in zip(asked, prompts, strict=True))
    write_rows(stage.folder, "asked.arrow", rows, QUESTION_TYPES)
    (answers,) = collect(stage, ArrowRows(stage.folder, ["asked.arrow"]), [model], planner.collect)
    return [row["response"] for row in read_answers(stage.run.folder, answers)]
