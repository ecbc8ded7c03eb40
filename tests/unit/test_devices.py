"""Every model, loss and way of decoding leaves no tensor off the card, and computes there what it does on the CPU.
Losses in bfloat16 are close to those in float32."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch

from squadron.llm.backends.mean_states import mean_states
from squadron.llm.chat import Sampling
from squadron.llm.decoding.decoder import Answer, Decoder
from squadron.llm.decoding.generation import generate
from squadron.llm.decoding.grammar import Grammars
from squadron.llm.decoding.sampling import Sampler
from squadron.llm.rewards.local import _label_values
from squadron.methods.coordination.config import LossConfig, ModelConfig
from squadron.methods.coordination.model import GraphVae
from squadron.methods.coordination.training import PlanLoss
from squadron.methods.crowdselect.judging import mean_losses
from squadron.methods.flame.algorithm import (
    BCPolicy,
    Demonstrations,
    Optimisation,
    fit,
    mean_squared_error,
)
from squadron.train.objectives.contrastive import Contrastive
from squadron.train.objectives.language import DirectPreference, SupervisedFineTuning, with_reference
from squadron.train.objectives.reward import Classification, OutcomeReward, ProcessReward
from tests.card import card
from tests.llm.test_decoder import make_answer
from tests.llm.test_local_models import random_model, random_prompts
from tests.methods.test_coordination_planner import batch_of, random_graph
from tests.parity.test_train_losses import PAD, make_rows, tiny

Send = Callable[[Any], Any]


def here(what: Any) -> Any:
    return what


def same_on_card(make: Callable[[], Any], run: Callable[[Any, Send], Any]) -> None:
    """What `run` returns is the same for a model that is here and for one that was sent to the card."""
    torch.manual_seed(0)
    expected = run(make(), here)
    torch.manual_seed(0)
    model = make()
    with card() as send:
        found = run(send(model), send)
    assert found == expected or found == pytest.approx(expected, rel=1e-4)


def descend(objective: Any, model: Any, rows: Sequence[Any], send: Send) -> list[float]:
    """The loss, its other figures, and the sum of all gradients."""
    answer = objective(model, send(objective.collate(rows)))
    loss, figures = answer if isinstance(answer, tuple) else (answer, {})
    loss.backward()
    gradients = [weight.grad for weight in model.parameters() if weight.grad is not None]
    assert gradients
    total = torch.stack([gradient.float().abs().sum() for gradient in gradients]).sum()
    return [loss.item(), total.item(), *(figure.item() for figure in figures.values())]


def adapted(model: Any) -> Any:
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(1)
    adapters = LoraConfig(r=4, init_lora_weights=False, task_type="CAUSAL_LM", target_modules=["q_proj", "up_proj"])
    return get_peft_model(model, adapters)


OBJECTIVES: dict[str, tuple[Any, Callable[[], Any]]] = {
    **{
        f"sft, {how}, chunks of {chunk}": (SupervisedFineTuning(chunk), lambda how=how: tiny("LlamaForCausalLM", how))
        for how, chunk in (("packed", 0), ("packed", 7), ("eager", 0))
    },
    "sft, sliding window": (SupervisedFineTuning(), lambda: tiny("MistralForCausalLM", "packed", sliding_window=4)),
    "sft, capped logits": (
        SupervisedFineTuning(7),
        lambda: tiny("Gemma2ForCausalLM", "eager", head_dim=8, final_logit_softcapping=1.5),
    ),
    "sft, adapters": (SupervisedFineTuning(7), lambda: adapted(tiny("LlamaForCausalLM", "packed"))),
    "dpo": (
        DirectPreference(chunk=7, nll_weight=0.5),
        lambda: with_reference(*(tiny("LlamaForCausalLM", "packed", seed=seed) for seed in range(2))),
    ),
    "dpo, adapters": (DirectPreference(label_smoothing=0.1), lambda: adapted(tiny("LlamaForCausalLM", "packed"))),
    "reward": (OutcomeReward(PAD, center=0.1), lambda: tiny("LlamaForSequenceClassification", num_labels=1)),
    "process reward": (ProcessReward(PAD), lambda: tiny("LlamaForTokenClassification", num_labels=96)),
    "classification": (Classification(PAD), lambda: tiny("LlamaForSequenceClassification", num_labels=3)),
    **{
        f"contrastive, {pooling}": (Contrastive(PAD, pooling=pooling), lambda: tiny("LlamaModel"))  # type: ignore[arg-type]
        for pooling in ("mean", "last")
    },
    **{
        f"plans, latent {latent}": (
            PlanLoss(LossConfig()),
            lambda latent=latent: GraphVae(ModelConfig(hidden=8, layers=2, heads=2, latent=latent)),
        )
        for latent in (0, 3)
    },
}


def rows_of(objective: Any) -> list[Any]:
    return batch_of([random_graph(seed, 4) for seed in range(2)])[1] if isinstance(objective, PlanLoss) else make_rows()


@pytest.mark.parametrize("name", OBJECTIVES)
def test_losses_and_gradients_on_the_card(name: str) -> None:
    objective, make = OBJECTIVES[name]
    rows = rows_of(objective)
    same_on_card(make, lambda model, send: descend(objective, model, rows, send))


def test_rows_without_a_target_still_use_the_model_on_the_card() -> None:
    rows = [{"input_ids": np.arange(5), "labels": np.full(5, -100)}]
    same_on_card(
        lambda: tiny("LlamaForCausalLM", "packed"),
        lambda model, send: descend(SupervisedFineTuning(7), model, rows, send),
    )


@pytest.mark.parametrize("name", [name for name, (one, _) in OBJECTIVES.items() if not isinstance(one, PlanLoss)])
def test_losses_in_bfloat16_are_close_to_those_in_float32(name: str) -> None:
    objective, make = OBJECTIVES[name]
    rows = rows_of(objective)
    found = []
    for dtype in (torch.float32, torch.bfloat16):
        torch.manual_seed(0)
        found.append(descend(objective, make().to(dtype), rows, here))
    assert np.isfinite(found).all()
    assert found[1][0] == pytest.approx(found[0][0], rel=0.1, abs=0.05)
    assert found[1][1] == pytest.approx(found[0][1], rel=0.2)


def decode(model: Any, *joining: Sequence[Answer]) -> None:
    with torch.inference_mode():
        decoder = Decoder(model)
        for answers in joining:
            decoder.step(answers)
        while decoder.answers:
            decoder.step()


@pytest.mark.parametrize("kind", ["llama", "repetition penalty", "sliding window", "no positions"])
def test_answers_on_the_card(kind: str) -> None:
    """All ways of choosing a token, side by side; answers join while others are being given."""
    prompts = random_prompts(2)

    def run(model: Any, send: Send) -> Any:
        answers = [make_answer(*one) for one in enumerate(prompts)]
        if kind == "no positions":
            generate(model, answers)
        else:
            for answer in answers:
                answer.top_logprobs = 2
            decode(model, answers[:2], answers[2:])
        assert all(answer.error == "" for answer in answers)
        return [answer.tokens for answer in answers] + [len(answer.logprobs) for answer in answers]

    same_on_card(lambda: random_model(kind), run)


def test_answers_keep_to_a_grammar_on_the_card(chat: Any) -> None:
    network, tokenizer = chat

    def run(model: Any, send: Send) -> Any:
        schema = {"type": "object", "properties": {"a": {"type": "boolean"}}}
        grammar = Grammars(tokenizer, {1}).json(schema, "schema")
        answer = Answer((3, 4), Sampler(Sampling(temperature=1.0, top_p=0.9, seed=0), grammar=grammar), 12)
        generate(model, [answer])
        assert answer.error == "" and tokenizer.decode(answer.tokens).startswith("{")
        return answer.tokens

    same_on_card(lambda: copy.deepcopy(network), run)


def test_answers_with_adapters_of_their_own_on_the_card(adapters: Any) -> None:
    make, names = adapters

    def run(model: Any, send: Send) -> Any:
        answers = [Answer((3, 4, 5), Sampler(Sampling()), 2, top_logprobs=1, adapter=name) for name in names]
        decode(model, answers)
        found = [one.logprob for answer in answers for one in answer.logprobs]
        assert len(set(found)) > len(names)
        return found + mean_states(model, [[3, 4]], names[-1]).ravel().tolist()

    same_on_card(make, run)


def test_states_losses_and_label_shares_on_the_card() -> None:
    rows = make_rows()

    def run(model: Any, send: Send) -> list[float]:
        encoded = [{"input_ids": row["input_ids"].tolist()} for row in rows]
        states = mean_states(model, [one["input_ids"] for one in encoded])
        return [*states.ravel(), *mean_losses(model, rows), *_label_values(model, (5, 6), encoded)]

    same_on_card(lambda: tiny("LlamaForCausalLM", "packed").eval(), run)


def test_a_policy_is_fitted_and_measured_on_the_card() -> None:
    draw = np.random.default_rng(0)
    images = draw.integers(0, 255, (8, 8, 8, 3), dtype=np.uint8)
    states, actions = (draw.uniform(-1, 1, (8, 8)).astype(np.float32) for _ in range(2))
    data = Demonstrations(images, states, actions)

    def run(policy: Any, send: Send) -> list[float]:
        loss = fit(policy, data, Optimisation(epochs=1, batch_size=4, shift_px=1, proximal_mu=0.1), 0)
        return [loss, mean_squared_error(policy, data)]

    same_on_card(lambda: BCPolicy(8), run)


def test_a_tensor_that_is_left_on_the_cpu_is_found() -> None:
    with card() as send:
        sent = send(torch.ones(2, 3))
        assert (sent + torch.ones(())).device == sent.device  # as a card takes numbers from anywhere
        assert (sent.sum(1) > 2).nonzero().device == sent.device
        for mix in (lambda: sent + torch.ones(3), lambda: torch.zeros(4)[sent[0].long()], lambda: sent.numpy()):
            with pytest.raises((RuntimeError, TypeError)):
                mix()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    from tests.llm.tiny import store_tiny_chat

    return store_tiny_chat(tmp_path_factory.mktemp("chat") / "model", ['{"a": true}', "yes and no"])


@pytest.fixture(scope="module")
def chat(folder: str) -> Any:
    from squadron.llm.backends.hf import load_model
    from squadron.llm.settings import HfModel

    loaded = load_model(HfModel(name="tiny", path=folder))
    return loaded.model, loaded.tokenizer


@pytest.fixture(scope="module")
def adapters(folder: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Callable[[], Any], list[str]]:
    """What makes a model with two adapters, and what each of these is called."""
    from transformers import AutoModelForCausalLM

    from squadron.llm.decoding.adapters import attach
    from tests.llm.tiny import store_tiny_adapters

    stored = store_tiny_adapters(tmp_path_factory.mktemp("adapters"), folder)

    def make() -> tuple[Any, dict[str, str]]:
        return attach(AutoModelForCausalLM.from_pretrained(folder).eval(), stored.adapters)

    return lambda: make()[0], list(make()[1].values())
