"""The small language model: trained here to think about situations, where the user brings none."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from squadron.core.folder import Folder
from squadron.core.rows import map_rows
from squadron.core.run import Stage
from squadron.evaluate.panels import estimate_table, loss_curves
from squadron.evaluate.summary import estimate
from squadron.llm.chat import Sampling
from squadron.llm.providers import open_model
from squadron.llm.settings import HfModel
from squadron.methods.actor_reasoner.algorithm import ACTIONS
from squadron.methods.actor_reasoner.config import LessonsConfig, SceneConfig
from squadron.methods.actor_reasoner.episodes import LESSONS
from squadron.methods.actor_reasoner.prompts import BRIEF, Situation, Thought, answer, question
from squadron.methods.actor_reasoner.reasoner import Reasoner
from squadron.methods.actor_reasoner.records import ReasonerModel
from squadron.methods.actor_reasoner.training_data import Lesson, by_stake, draw_lessons
from squadron.train.tuning import SmallModel, tune_small

_SHORT = Sampling(max_tokens=48)
"""How the small model is asked."""
_TOGETHER = 100
_CHECKED = 2000


def teach(stage: Stage, scenes: Sequence[SceneConfig], config: LessonsConfig, words: int) -> ReasonerModel:
    """Train the small model on all scenes, and measure what it has learned on episodes that were held out. A display of
    more than `words` words is not shown."""
    seed = scenes[0].seed
    learned, kept = _draw(stage, scenes, config)
    texts = (text for one in learned for text in (question(one.situation, BRIEF, words), answer(one.thought)))
    drawn = by_stake(learned, round(config.training.epochs * len(learned)), seed)
    spec = config.training.model_copy(update={"seed": seed, "epochs": 1})  # all of them are in the rows
    small = SmallModel("reasoner", config.model, lambda tokenizer: _encode(tokenizer, drawn, words), spec)
    (tuned,) = tune_small(stage, itertools.chain(texts, ("user", "assistant")), [small])
    stage.show(loss_curves("Loss of the small model", {"training": tuned.losses}))
    trained = tuned.model
    stage.headline("parameters of the small model", f"{trained.parameters:,}")
    stage.headline("situations learned", f"{len(learned):,}")
    model = ReasonerModel(trained=trained, rehearsed=config.rehearsed)
    with open_small(model, stage.run.folder, words) as reasoner:
        check(stage, reasoner, kept[:: max(1, len(kept) // _CHECKED)])
    return model


def open_small(model: ReasonerModel, run: Folder, words: int) -> Reasoner:
    """The small model as a Reasoner, loaded. A display of more than `words` words is not shown."""
    assert model.trained is not None
    path = model.trained.locate(run)
    settings = HfModel(name="small model", path=path, batch_size=128, rehearsed=model.rehearsed)
    return Reasoner(open_model(settings), BRIEF, _SHORT, words)


def check(stage: Stage, reasoner: Reasoner, lessons: Sequence[Lesson]) -> None:
    """Show how often a Reasoner thinks what is so."""
    thoughts = reasoner.think([lesson.situation for lesson in lessons])
    possible = {"style": sum(1 / lesson.styles for lesson in lessons) / len(lessons)}
    rows = []
    for name, what in (("style", "style of the driver"), ("intention", "what it does next"), ("action", "decision")):
        truths = [getattr(lesson.thought, name) for lesson in lessons]
        right = [
            truth == getattr(thought, name) and not thought.error
            for truth, thought in zip(truths, thoughts, strict=True)
        ]
        commonest = max(truths.count(value) for value in set(truths)) / len(truths)
        found = estimate(right, share=True)
        rows.append(([what], found, [f"{commonest:.1%}", f"{possible[name]:.1%}" if name in possible else None]))
        stage.headline(f"{what}, right", f"{found.mean:.1%}")
    unread = sum(bool(thought.error) for thought in thoughts)
    lost_s = _mean_loss_s(lessons, [thought.action for thought in thoughts])
    always_s, always = min(
        (_mean_loss_s(lessons, [action] * len(lessons)), name) for action, name in enumerate(ACTIONS)
    )
    stage.headline("a decision loses", f"{lost_s:.2f} s")
    note = (
        f"A decision loses {lost_s:.2f} s on average to the oracle's, where a collision counts for "
        f"lessons.collision_s; always {always} would lose {always_s:.2f} s. "
        f"On {len(lessons):,} situations of episodes that were held out; {unread:,} answers could not be read. "
        "Possible: by whoever knows the drivers' game and all that they did; the rest has not shown yet."
    )
    others = ["if always the commonest", "possible"]
    stage.show(estimate_table("What the Reasoner knows", ["what"], "right", rows, form=".1%", others=others, note=note))


def _mean_loss_s(lessons: Sequence[Lesson], actions: Sequence[int]) -> float:
    return sum(lesson.lost_s(action) for lesson, action in zip(lessons, actions, strict=True)) / len(lessons)


def _draw(stage: Stage, worlds: Sequence[SceneConfig], config: LessonsConfig) -> tuple[list[Lesson], list[Lesson]]:
    """Lessons to learn from, and those of the first episodes of each scene, which are held out."""
    rows = [
        {"id": f"{world.scene} {start}", "world": number, "episodes": [start, min(start + _TOGETHER, config.episodes)]}
        for number, world in enumerate(worlds)
        for start in range(0, config.episodes, _TOGETHER)
    ]
    drawn = map_rows(
        stage,
        rows,
        _draw_some,
        unit="lot",
        timeout_s=3600.0,
        worlds=tuple(worlds),
        explore=config.explore,
        collision_s=config.collision_s,
    )
    held_out = max(1, round(config.held_out * config.episodes))
    lots: tuple[list[Lesson], list[Lesson]] = ([], [])
    for lot in drawn:
        for episode, situation, thought, styles, costs in lot["lessons"]:
            lesson = Lesson(episode, Situation(**situation), Thought(**thought), styles, tuple(costs))
            lots[episode < held_out].append(lesson)
    return lots


def _draw_some(
    row: dict[str, Any], worlds: Sequence[SceneConfig], explore: float, collision_s: float
) -> dict[str, Any]:
    """Runs on a worker."""
    episodes = [LESSONS + episode for episode in range(*row["episodes"])]
    drawn = draw_lessons(worlds[row["world"]], episodes, explore, collision_s)
    found = [
        (one.episode - LESSONS, asdict(one.situation), asdict(one.thought), one.styles, one.costs) for one in drawn
    ]
    return {"id": row["id"], "lessons": found}


def _encode(tokenizer: Any, lessons: Sequence[Lesson], words: int) -> Iterator[dict[str, Any]]:
    from squadron.train.text.conversations import encode_conversation

    for lesson in lessons:
        asked = {"role": "user", "content": question(lesson.situation, BRIEF, words)}
        yield encode_conversation(tokenizer, [asked, {"role": "assistant", "content": answer(lesson.thought)}])
