"""The house's own solver: a small model that learns from nothing to answer word problems, plain and with facts in tags.

Small models fail to write tags when they are asked to; one that has learned from answers with tags does not. All ways
of answering are learned by one model from the same problems, each in as many rows.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

from squadron.core.job import estimated
from squadron.core.run import Stage
from squadron.evaluate.panels import loss_curves
from squadron.methods.hot import plan
from squadron.methods.hot.config import DrawConfig, Mode
from squadron.methods.hot.solver_config import SolverConfig
from squadron.methods.hot.synthetic import draw_world, lessons
from squadron.train.library_setup import quiet_libraries
from squadron.train.models.artifact import ModelArtifact
from squadron.train.tuning import SmallModel, tune_small

_TOKENIZED = 3000
"""Lessons that the tokenizer is trained on."""


@estimated(plan.solver)
def train_solver(stage: Stage, config: SolverConfig, modes: tuple[Mode, ...], draw: DrawConfig) -> ModelArtifact:
    """Train the solver, by the prompts that it is asked with, which show no demonstrations."""
    quiet_libraries()
    _, learned = draw_world(config.world, 2 * draw.count, config.problems, draw.seed)

    def encode(tokenizer: Any) -> Iterator[Mapping[str, Any]]:
        from squadron.train.text.conversations import encode_completion, encode_conversation

        for prompt, answer in lessons(config, modes, learned):
            if prompt:
                said = [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]
                yield encode_conversation(tokenizer, said)
            else:
                yield encode_completion(tokenizer, "", answer)

    asked = (one for one in lessons(config, modes, learned) if one.prompt)
    texts = [text for lesson in itertools.islice(asked, _TOKENIZED) for text in lesson]
    shape = config.shape(config.vocabulary, config.context, config.initializer_range, config.rope_theta)
    small = SmallModel(config.name, shape, encode, config.training, "lessons")
    (tuned,) = tune_small(stage, [*texts, "user", "assistant"], [small])
    stage.show(loss_curves(f"Training loss of {config.name}", {config.name: tuned.losses}))
    return tuned.model
