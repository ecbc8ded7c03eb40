"""Losses of `squadron.train.objectives` against transformers' own, TRL's trainers and closed forms.

    python tests/parity/test_train_losses.py FOLDER RANK WORKERS    # one worker of the group of the contrastive test

Everything runs in float32 on models of two layers with random weights.
"""

from __future__ import annotations

import copy
import itertools
import math
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from squadron.core.errors import InputError
from squadron.train.batching.packing import pack
from squadron.train.models import attention
from squadron.train.objectives.contrastive import Contrastive
from squadron.train.objectives.language import DirectPreference, SupervisedFineTuning, with_reference
from squadron.train.objectives.layout import IGNORED, end_to_end, padded
from squadron.train.objectives.reward import Classification, OutcomeReward, ProcessReward

VOCABULARY, PAD, EOS = 96, 0, 1
SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "pad_token_id": PAD,
    "eos_token_id": EOS,
    "initializer_range": 0.3,
}
ATTENTIONS = ["packed", "sdpa"]


def tiny(name: str, attention_name: str = "sdpa", seed: int = 0, **more: Any) -> Any:
    """A model of transformers' class `name`, such as LlamaForCausalLM, with random weights of this seed."""
    import transformers

    attention.register()
    family = name.partition("For")[0].removesuffix("Model")
    config = getattr(transformers, f"{family}Config")(**SIZES, **more)
    config._attn_implementation = attention_name
    torch.manual_seed(seed)
    return getattr(transformers, name)(config).train()


def make_rows(count: int = 5, seed: int = 0) -> list[dict[str, Any]]:
    """Rows of different lengths for every objective. The first third of `labels`, the prompt, is left out."""
    draw = np.random.default_rng(seed)

    def tokens(shortest: int, longest: int) -> np.ndarray:
        return draw.integers(3, VOCABULARY, int(draw.integers(shortest, longest)))

    rows: list[dict[str, Any]] = []
    for number in range(count):
        ids = tokens(6, 24)
        outside = np.arange(len(ids)) < len(ids) // 3
        rows.append(
            {
                "input_ids": ids,
                "labels": np.where(outside, IGNORED, ids),
                "prompt_ids": tokens(3, 8),
                "chosen_ids": tokens(2, 9),
                "rejected_ids": tokens(2, 9),
                "query_ids": tokens(2, 9),
                "positive_ids": tokens(2, 12),
                "negative_ids": [tokens(2, 12) for _ in range(2)],
                "label": number % 3,
            }
        )
    return rows


def value_and_gradients(loss: torch.Tensor, model: torch.nn.Module) -> tuple[float, dict[str, torch.Tensor]]:
    trained = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    gradients = torch.autograd.grad(loss, list(trained.values()), allow_unused=True)
    return loss.item(), {name: grad for name, grad in zip(trained, gradients, strict=True) if grad is not None}


def assert_same(found: tuple[float, dict[str, torch.Tensor]], expected: tuple[float, dict[str, torch.Tensor]]) -> None:
    """Losses within 1e-5, and gradients within 1e-5 of the largest number in any of them."""
    assert found[0] == pytest.approx(expected[0], rel=1e-5, abs=1e-5)
    assert found[1].keys() == expected[1].keys()
    largest = max(float(gradient.abs().max()) for gradient in expected[1].values())
    assert largest > 0
    for name, gradient in expected[1].items():
        torch.testing.assert_close(
            found[1][name], gradient, rtol=1e-5, atol=1e-5 * largest, msg=f"the gradient of {name} differs"
        )


def ours(objective: Any, model: Any, rows: Sequence[Any]) -> tuple[float, dict[str, torch.Tensor]]:
    answer = objective(model, objective.collate(rows))
    return value_and_gradients(answer[0] if isinstance(answer, tuple) else answer, model)


def own_causal_loss(model: Any, rows: Sequence[Any]) -> tuple[float, dict[str, torch.Tensor]]:
    """What transformers makes of the same rows, padded."""
    ids, mask = padded([row["input_ids"] for row in rows], PAD)
    labels, _ = padded([row["labels"] for row in rows], IGNORED)
    return value_and_gradients(model(input_ids=ids, attention_mask=mask, labels=labels).loss, model)


@pytest.mark.parametrize("chunk", [0, 7])
@pytest.mark.parametrize("attention_name", ATTENTIONS)
@pytest.mark.parametrize("name", ["LlamaForCausalLM", "Qwen2ForCausalLM"])
def test_fine_tuning_is_transformers_own_loss(name: str, attention_name: str, chunk: int) -> None:
    rows, model = make_rows(), tiny(name, attention_name)
    reference = tiny(name, "sdpa")
    assert_same(ours(SupervisedFineTuning(chunk), model, rows), own_causal_loss(reference, rows))


@pytest.mark.parametrize("chunk", [0, 7])
@pytest.mark.parametrize("attention_name", ATTENTIONS)
def test_capped_logits_stay_capped_in_chunks(attention_name: str, chunk: int) -> None:
    """Gemma 2 with a cap low enough to matter."""
    settings_of_gemma: dict[str, Any] = {"head_dim": 8, "final_logit_softcapping": 1.5}
    model = tiny("Gemma2ForCausalLM", attention_name, **settings_of_gemma)
    rows, reference = make_rows(), tiny("Gemma2ForCausalLM", **settings_of_gemma)
    expected = own_causal_loss(reference, rows)
    assert_same(ours(SupervisedFineTuning(chunk), model, rows), expected)
    uncapped = own_causal_loss(tiny("Gemma2ForCausalLM", head_dim=8, final_logit_softcapping=None), rows)
    assert abs(uncapped[0] - expected[0]) > 0.1


@pytest.mark.parametrize("attention_name", ATTENTIONS)
@pytest.mark.parametrize("name", ["LlamaForCausalLM", "Qwen2ForCausalLM"])
def test_sequences_of_a_row_have_the_logits_they_have_alone(name: str, attention_name: str) -> None:
    rows, model = make_rows(), tiny(name, attention_name)
    batch = SupervisedFineTuning().collate(rows)
    bounds = batch["bounds"]
    with torch.no_grad():
        together = model(batch["input_ids"], position_ids=batch["position_ids"], cu_seq_lens_q=bounds, use_cache=False)
        for row, logits_TV in zip(rows, together.logits[0].split(bounds.diff().tolist()), strict=True):
            alone = model(torch.as_tensor(row["input_ids"])[None]).logits[0]
            torch.testing.assert_close(logits_TV, alone, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("attention_name", ATTENTIONS)
def test_no_gradient_flows_between_sequences_of_a_row(attention_name: str) -> None:
    rows, model = make_rows(3), tiny("LlamaForCausalLM", attention_name)
    batch = SupervisedFineTuning().collate(rows)
    first, last = batch["bounds"][1:3].tolist()
    embeddings = model.get_input_embeddings()(batch["input_ids"]).detach().requires_grad_()
    places = {"position_ids": batch["position_ids"], "cu_seq_lens_q": batch["bounds"], "use_cache": False}
    logits_NV = model(inputs_embeds=embeddings, **places).logits[0, first : last - 1]
    torch.nn.functional.cross_entropy(logits_NV, batch["input_ids"][0, first + 1 : last]).backward()
    gradient_NE = embeddings.grad[0]
    assert not gradient_NE[:first].any() and not gradient_NE[last:].any()
    assert gradient_NE[first : last - 1].any(dim=1).all()


def tokenizer() -> Any:
    """Words of one token each, w3 to w95, after padding, end of sequence and unknown."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = ["<pad>", "</s>", "<unk>", *(f"w{number}" for number in range(3, VOCABULARY))]
    inner = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="<pad>", eos_token="</s>", unk_token="<unk>")


def on_cpu(folder: Path) -> dict[str, Any]:
    """Settings of a TRL trainer that make its loss comparable."""
    quiet = {"report_to": "none", "disable_tqdm": True, "save_strategy": "no"}
    return {"output_dir": str(folder), "use_cpu": True, "bf16": False, "gradient_checkpointing": False, **quiet}


def preference_trainer(folder: Path, model: Any, reference: Any = None, lora: Any = None, **more: Any) -> Any:
    """TRL's trainer over four pairs of texts, which it tokenises itself."""
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    draw = np.random.default_rng(1)
    texts = [
        {name: " ".join(f"w{n}" for n in draw.integers(3, VOCABULARY, draw.integers(2, 9))) + " " for name in names}
        for names in [("prompt", "chosen", "rejected")] * 4
    ]
    arguments = DPOConfig(per_device_train_batch_size=4, beta=0.1, **on_cpu(folder), **more)
    rows = Dataset.from_list(texts)
    return DPOTrainer(model, reference, arguments, train_dataset=rows, processing_class=tokenizer(), peft_config=lora)


def trl_loss(trainer: Any, rows: list[Any]) -> tuple[float, dict[str, torch.Tensor]]:
    """The loss that the trainer computes of these rows of its own data."""
    inputs = trainer.data_collator(rows)
    return value_and_gradients(trainer.compute_loss(trainer.model, inputs), trainer.model)


def without_prefix(answer: tuple[float, dict[str, torch.Tensor]], prefix: str) -> tuple[float, dict[str, torch.Tensor]]:
    return answer[0], {name.removeprefix(prefix): gradient for name, gradient in answer[1].items()}


@pytest.mark.parametrize("chunk", [0, 7])
def test_preference_loss_is_trls_with_a_reference_model(tmp_path: Path, chunk: int) -> None:
    policy, reference = (tiny("LlamaForCausalLM", seed=seed) for seed in (0, 1))
    trainer = preference_trainer(tmp_path, copy.deepcopy(policy), copy.deepcopy(reference))
    rows = list(trainer.train_dataset)
    assert all(row["chosen_ids"][-1] == EOS for row in rows)
    found = ours(DirectPreference(beta=0.1, chunk=chunk), with_reference(policy, reference), rows)
    assert_same(without_prefix(found, "policy."), trl_loss(trainer, rows))


@pytest.mark.parametrize("attention_name", ATTENTIONS)
def test_preference_loss_is_trls_with_the_adapter_off(tmp_path: Path, attention_name: str) -> None:
    from peft import LoraConfig, get_peft_model

    lora = LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM")
    trainer = preference_trainer(tmp_path, tiny("Qwen2ForCausalLM"), lora=lora)
    torch.manual_seed(2)
    for name, weight in trainer.model.named_parameters():
        if "lora_B" in name:  # zero at first, where policy and reference are the same
            torch.nn.init.normal_(weight, std=0.3)
    model = get_peft_model(tiny("Qwen2ForCausalLM", attention_name), lora)
    model.load_state_dict(trainer.model.state_dict())
    rows = list(trainer.train_dataset)
    expected = trl_loss(trainer, rows)
    assert abs(expected[0] - math.log(2)) > 0.01
    assert_same(ours(DirectPreference(beta=0.1), model, rows), expected)


def test_label_smoothing_is_trls(tmp_path: Path) -> None:
    """TRL smooths labels in this way in its loss `aot`, which for a single pair is DPO's."""
    policy, reference = (tiny("LlamaForCausalLM", seed=seed) for seed in (0, 1))
    copies = copy.deepcopy((policy, reference))
    trainer = preference_trainer(tmp_path, *copies, loss_type="aot", label_smoothing=0.2)
    objective, model = DirectPreference(beta=0.1, label_smoothing=0.2), with_reference(policy, reference)
    for row in trainer.train_dataset:
        assert_same(without_prefix(ours(objective, model, [row]), "policy."), trl_loss(trainer, [row]))


class Bigram(torch.nn.Module):
    """A language model whose next token depends on the last one alone, so that its likelihoods are known."""

    def __init__(self, probabilities_VV: list[list[float]]) -> None:
        super().__init__()
        self.config = SimpleNamespace()
        self.logits_VV = torch.nn.Parameter(torch.tensor(probabilities_VV).log())

    def forward(self, input_ids: torch.Tensor, logits_to_keep: torch.Tensor, **unused: Any) -> Any:
        return SimpleNamespace(logits=self.logits_VV[input_ids[:, logits_to_keep]])


UNIFORM = [[0.25] * 4] * 4
KNOWN = [[0.25] * 4, [0.1, 0.6, 0.2, 0.1], [0.25, 0.25, 0.25, 0.25], [0.4, 0.3, 0.2, 0.1]]
STEP: dict[str, Any] = {"prompt_ids": [0, 2, 3], "chosen_ids": [1, 1], "rejected_ids": [2]}


def test_a_step_is_preferred_by_its_own_tokens_alone() -> None:
    """By hand: after 3, the step 1 1 has 0.3 · 0.6 and the step 2 has 0.2; the reference 1/16 and 1/4."""
    policy, reference = Bigram(KNOWN), Bigram(UNIFORM)
    objective = DirectPreference(beta=0.5)
    batch = objective.collate([STEP])
    assert batch["input_ids"].tolist() == [[0, 2, 3, 1, 1, 0, 2, 3, 2]]  # context and step, nothing added
    assert batch["targets"].tolist() == [1, 1, 2]
    loss, metrics = objective(with_reference(policy, reference), batch)
    odds = ((0.3 * 0.6 * 16) / (0.2 * 4)) ** 0.5
    assert loss.item() == pytest.approx(-math.log(odds / (1 + odds)), abs=1e-6)
    assert metrics["margin"].item() == pytest.approx(math.log(odds), abs=1e-6)
    assert metrics["accuracy"].item() == 1
    loss.backward()
    gradient_VV = policy.logits_VV.grad
    assert gradient_VV is not None and gradient_VV[1].any() and gradient_VV[3].any()
    assert not gradient_VV[0].any() and not gradient_VV[2].any()  # what the context says next has no part in it


def test_nothing_that_the_context_predicts_changes_a_steps_loss() -> None:
    """Whatever the model expects within the context, the loss stays the same to the bit."""
    reference, objective = Bigram(UNIFORM), DirectPreference(beta=0.5)
    other = [[0.7, 0.1, 0.1, 0.1], KNOWN[1], [0.1, 0.1, 0.1, 0.7], KNOWN[3]]
    losses = [
        objective(with_reference(Bigram(table), reference), objective.collate([STEP]))[0].item()
        for table in (KNOWN, other)
    ]
    assert losses[0] == losses[1]


@pytest.mark.parametrize("center", [0.0, 0.05])
def test_outcome_reward_is_trls(tmp_path: Path, center: float) -> None:
    from datasets import Dataset
    from trl import RewardConfig, RewardTrainer

    rows = [{name: row[name].tolist() for name in ("chosen_ids", "rejected_ids")} for row in make_rows()]
    model = tiny("LlamaForSequenceClassification", num_labels=1)
    trainer = RewardTrainer(
        copy.deepcopy(model),
        RewardConfig(center_rewards_coefficient=center or None, **on_cpu(tmp_path)),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer(),
    )
    assert_same(ours(OutcomeReward(PAD, center), model, rows), trl_loss(trainer, rows))


@pytest.mark.parametrize("name", ["LlamaForTokenClassification", "Qwen2ForTokenClassification"])
def test_process_reward_is_transformers_own_loss(name: str) -> None:
    """Every third token ends a step and is judged."""
    rows = [
        {"input_ids": row["input_ids"], "labels": np.where(np.arange(len(ids)) % 3 == 2, ids % 2, IGNORED)}
        for row in make_rows()
        for ids in [row["input_ids"]]
    ]
    model = tiny(name, num_labels=2)
    # The dropout before its head is transformers' own; both sides run without.
    model.eval()
    ids, mask = padded([row["input_ids"] for row in rows], PAD)
    labels, _ = padded([row["labels"] for row in rows], IGNORED)
    expected = value_and_gradients(model(input_ids=ids, attention_mask=mask, labels=labels).loss, model)
    assert_same(ours(ProcessReward(PAD), model, rows), expected)


@pytest.mark.parametrize("name", ["LlamaForSequenceClassification", "Qwen2ForSequenceClassification"])
def test_classification_is_transformers_own_loss(name: str) -> None:
    rows, model = make_rows(), tiny(name, num_labels=3)
    ids, mask = padded([row["input_ids"] for row in rows], PAD)
    labels = torch.tensor([row["label"] for row in rows])
    expected = value_and_gradients(model(input_ids=ids, attention_mask=mask, labels=labels).loss, model)
    assert_same(ours(Classification(PAD), model, rows), expected)


@pytest.mark.parametrize("pooling", ["mean", "cls", "last"])
def test_contrastive_loss_is_infonce(pooling: Any) -> None:
    """In numpy, from the hidden states of each text alone, without padding."""
    rows, model = make_rows(), tiny("LlamaModel")
    objective = Contrastive(PAD, temperature=0.2, pooling=pooling)

    def embed(ids: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            hidden_TE = model(torch.as_tensor(ids)[None]).last_hidden_state[0].double().numpy()
        pooled_E = {"mean": hidden_TE.mean(0), "cls": hidden_TE[0], "last": hidden_TE[-1]}[pooling]
        return pooled_E / np.linalg.norm(pooled_E)

    documents = [row["positive_ids"] for row in rows] + [ids for row in rows for ids in row["negative_ids"]]
    query_QE = np.stack([embed(row["query_ids"]) for row in rows])
    document_DE = np.stack([embed(ids) for ids in documents])
    scores_QD = query_QE @ document_DE.T / 0.2
    own_Q = np.diagonal(scores_QD)
    expected = np.mean(np.log(np.exp(scores_QD).sum(1)) - own_Q)
    assert objective(model, objective.collate(rows))[0].item() == pytest.approx(expected, abs=1e-5)


def keyed(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """With keys: each query is answered by its own document and by a negative of another query, two rows on."""
    for number, row in enumerate(rows):
        row["document_keys"] = [3 * number, 3 * number + 1, 3 * number + 2]
        row["relevant_keys"] = [3 * number, 3 * ((number + 2) % len(rows)) + 1]
    return rows


def contrastive_worker(folder: str, rank: int, workers: int) -> None:
    """One worker's share of the batch; worker 0 writes the means over workers of loss and gradients."""
    import torch.distributed as dist

    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/group", rank=rank, world_size=workers)
    rows = keyed(make_rows(6))
    share = len(rows) // workers
    loss, gradients = ours(Contrastive(PAD), tiny("LlamaModel"), rows[rank * share : (rank + 1) * share])
    means = {"loss": torch.tensor(loss), **gradients}
    for tensor in means.values():
        dist.all_reduce(tensor)
        tensor /= workers
    if rank == 0:
        torch.save(means, f"{folder}/means.pt")
    # Each waits by a file until all are done, and leaves without taking the group down: gloo's threads may abort a
    # process whose peer has left while they still listen to it.
    Path(folder, f"done-{rank}").touch()
    while not all(Path(folder, f"done-{other}").exists() for other in range(workers)):
        time.sleep(0.05)
    sys.stderr.flush()
    os._exit(0)


def test_two_workers_have_the_contrastive_loss_of_one(tmp_path: Path) -> None:
    """Every query meets the documents of both, and the gradients come back to whoever embedded a document."""
    group = [subprocess.Popen([sys.executable, __file__, str(tmp_path), str(rank), "2"]) for rank in range(2)]
    expected = ours(Contrastive(PAD), tiny("LlamaModel"), keyed(make_rows(6)))
    assert [worker.wait(timeout=120) for worker in group] == [0, 0]
    means = torch.load(tmp_path / "means.pt", weights_only=True)
    assert_same((means.pop("loss").item(), means), expected)


def test_likelihood_of_the_chosen_answer_is_added_by_the_token() -> None:
    """Over each answer's own tokens first, then over pairs: a long answer counts like a short one."""
    rows, model = make_rows(), with_reference(*(tiny("LlamaForCausalLM", "packed", seed=seed) for seed in (0, 1)))
    plain, weighed = DirectPreference(), DirectPreference(nll_weight=0.5)
    with torch.no_grad():
        batch = plain.collate(rows)
        nlls = []
        for row in rows:
            ids = torch.as_tensor(np.concatenate([row["prompt_ids"], row["chosen_ids"]]))[None]
            logp_TV = model.policy(input_ids=ids).logits[0].log_softmax(-1)  # type: ignore[operator, union-attr]
            at = range(len(row["prompt_ids"]) - 1, ids.shape[1] - 1)
            nlls.append(-np.mean([float(logp_TV[place, ids[0, place + 1]]) for place in at]))
        difference = float(weighed(model, batch)[0]) - float(plain(model, batch)[0])
    assert difference == pytest.approx(0.5 * np.mean(nlls), abs=1e-5)


@pytest.fixture(scope="module")
def policy_and_reference() -> torch.nn.Module:
    return with_reference(*(tiny("LlamaForCausalLM", "packed", seed=seed) for seed in (0, 1)))


@settings(max_examples=15)
@given(order=st.permutations(range(5)), chunk=st.sampled_from([0, 7]))
def test_the_order_of_rows_changes_no_loss(policy_and_reference: torch.nn.Module, order: list[int], chunk: int) -> None:
    rows, model = make_rows(), policy_and_reference
    with torch.no_grad():
        for objective in (SupervisedFineTuning(chunk), DirectPreference(chunk=chunk)):
            losses = []
            for arranged in (rows, [rows[number] for number in order]):
                subject: Any = model if isinstance(objective, DirectPreference) else model.policy
                answer: Any = objective(subject, objective.collate(arranged))
                losses.append(float(answer[0] if isinstance(answer, tuple) else answer))
            assert losses[0] == pytest.approx(losses[1], rel=1e-5)


@st.composite
def lengths_and_capacity(draw: st.DrawFn) -> tuple[list[int], int]:
    capacity = draw(st.integers(1, 300))
    return draw(st.lists(st.integers(1, capacity), max_size=80)), capacity


@given(lengths_and_capacity())
def test_packing_uses_each_row_once_and_no_bin_overflows(drawn: tuple[list[int], int]) -> None:
    lengths, capacity = drawn
    bins = pack(lengths, capacity)
    assert sorted(itertools.chain(*bins)) == list(range(len(lengths)))
    assert all(sum(lengths[number] for number in bin) <= capacity for bin in bins)
    assert bins == pack(lengths, capacity) == sorted(sorted(bin) for bin in bins)
    # No two bins would fit into one, so that more than half of the room is used.
    fewest = math.ceil(sum(lengths) / capacity)
    assert fewest <= len(bins) <= max(fewest, 2 * fewest - 1)


@st.composite
def full_bins(draw: st.DrawFn) -> tuple[list[int], int, int]:
    """Bins without room, each cut into pieces, and the pieces shuffled: their number is the fewest there can be."""
    capacity, count = draw(st.integers(2, 200)), draw(st.integers(1, 20))
    pieces: list[int] = []
    for _ in range(count):
        cuts = draw(st.sets(st.integers(1, capacity - 1), max_size=6))
        pieces += [right - left for left, right in itertools.pairwise([0, *sorted(cuts), capacity])]
    return draw(st.permutations(pieces)), capacity, count


@given(full_bins())
def test_packing_needs_hardly_more_bins_than_the_best(drawn: tuple[list[int], int, int]) -> None:
    lengths, capacity, fewest = drawn
    assert fewest <= len(pack(lengths, capacity)) <= 11 / 9 * fewest + 1


def test_packing_puts_a_row_where_it_leaves_the_least_room() -> None:
    """Worst fit would put 4 beside 5 and 3 beside 6, and need a third bin for 2."""
    assert pack([6, 5, 4, 3, 2], 10) == [[0, 2], [1, 3, 4]]


def test_packing_refuses_a_row_that_fits_nowhere() -> None:
    with pytest.raises(InputError, match="row 1 has 9 tokens"):
        pack([3, 9], 8)


def test_a_row_without_targets_weighs_nothing_and_leaves_the_weights_alone() -> None:
    model, objective = tiny("LlamaForCausalLM", "packed"), SupervisedFineTuning()
    batch = end_to_end([np.array([4, 5, 6])], [np.full(3, IGNORED)])
    loss = objective(model, batch)
    assert objective.weight(batch) == 0 and loss.item() == 0
    assert not any(gradient.any() for gradient in value_and_gradients(loss, model)[1].values())


if __name__ == "__main__":
    contrastive_worker(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))


@pytest.mark.parametrize("architecture", ["Mistral", "Qwen2", "Gemma2"])
def test_windows_and_caps_on_attention_hold_in_rows_of_several_sequences(architecture: str) -> None:
    """Sequences longer than the model's window, against transformers' own eager attention on the padded batch."""
    import transformers

    from squadron.train.models.attention import choose

    torch.manual_seed(0)
    sizes = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8}
    window: dict[str, Any] = {"sliding_window": 8}
    if architecture == "Qwen2":
        window |= {"use_sliding_window": True, "max_window_layers": 0}
    if architecture == "Gemma2":
        window |= {"attn_logit_softcapping": 0.5}
    config = getattr(transformers, f"{architecture}Config")(**sizes, **heads, **window)
    model = getattr(transformers, f"{architecture}ForCausalLM")(config).eval()
    draw = np.random.default_rng(0)
    rows = [{"input_ids": ids, "labels": ids} for ids in (draw.integers(3, 64, n) for n in (40, 30, 5))]
    objective = SupervisedFineTuning()
    choose(model)
    ours = objective(model, objective.collate(rows))
    model.set_attn_implementation("eager")
    longest = max(len(row["input_ids"]) for row in rows)
    fill = lambda ids, value: np.pad(ids, (0, longest - len(ids)), constant_values=value)  # noqa: E731
    ids = torch.as_tensor(np.stack([fill(row["input_ids"], 0) for row in rows]))
    labels = torch.as_tensor(np.stack([fill(row["labels"], -100) for row in rows]))
    mask = torch.as_tensor(np.stack([fill(np.ones(len(row["input_ids"]), np.int64), 0) for row in rows]))
    theirs = model(input_ids=ids, attention_mask=mask, labels=labels).loss
    assert float(ours) == pytest.approx(float(theirs), abs=1e-5)


def test_a_model_with_recurrent_layers_is_refused() -> None:
    from transformers import MambaConfig, MambaForCausalLM

    from squadron.core.errors import InputError
    from squadron.train.models.attention import choose

    config = MambaConfig(vocab_size=64, hidden_size=16, num_hidden_layers=1, state_size=4)
    with pytest.raises(InputError, match="recurrent layers"):
        choose(MambaForCausalLM(config))
