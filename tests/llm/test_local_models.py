"""Models in this process: answers depend on what was asked, not on what was asked beside it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from squadron.core.errors import InputError
from squadron.llm.backends.hf import HfChat
from squadron.llm.chat import ChatRequest, ModelUnavailable, Sampling, user
from squadron.llm.decoding.decoder import Answer
from squadron.llm.decoding.generation import generate, stops_in
from squadron.llm.decoding.rows import has_rows
from squadron.llm.decoding.sampling import Sampler, keep_nucleus, score
from squadron.llm.providers import check_models, identity, open_model
from squadron.llm.settings import HfModel, OpenAiModel, Rule, ScriptedModel
from tests.llm.tiny import store_tiny_chat

QUESTIONS = [f"say {number} words, please" + " now" * (number % 7) for number in range(9)]


@pytest.fixture(scope="module")
def tiny_chat(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A model on disk."""
    return store_tiny_chat(tmp_path_factory.mktemp("models") / "chat", QUESTIONS * 4)


def ask(path: str, requests: list[ChatRequest], **settings: Any) -> dict[str, Any]:
    with HfChat(HfModel(name="tiny", path=path, **settings)) as model:
        return {reply.key: reply for reply in model.chat(requests)}


def test_greedy_answers_are_those_of_transformers(tiny_chat: str) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    replies = ask(tiny_chat, [ChatRequest(q, user(q), Sampling(max_tokens=12)) for q in QUESTIONS], batch_size=4)
    tokenizer = AutoTokenizer.from_pretrained(tiny_chat)
    model = AutoModelForCausalLM.from_pretrained(tiny_chat)
    for question in QUESTIONS:
        text = tokenizer.apply_chat_template(list(user(question)), tokenize=False, add_generation_prompt=True)
        ids = torch.tensor([tokenizer(text)["input_ids"]])
        out = model.generate(ids, max_new_tokens=12, do_sample=False)[0, ids.shape[1] :]
        assert replies[question].text == tokenizer.decode(out, skip_special_tokens=True)
        assert replies[question].prompt_tokens == ids.shape[1]


def test_a_sampled_answer_is_a_function_of_its_seed_whatever_shares_its_batch(tiny_chat: str) -> None:
    def requests(questions: list[str]) -> list[ChatRequest]:
        drawn = {q: Sampling(max_tokens=8, temperature=0.8, top_p=0.9, seed=n) for n, q in enumerate(QUESTIONS)}
        return [ChatRequest(q, user(q), drawn[q]) for q in questions]

    together = ask(tiny_chat, requests(QUESTIONS), batch_size=16)
    apart = ask(tiny_chat, requests(QUESTIONS[::-1]), batch_size=2)
    assert {key: reply.text for key, reply in together.items()} == {key: reply.text for key, reply in apart.items()}
    other = ask(tiny_chat, [ChatRequest("x", user(QUESTIONS[0]), Sampling(max_tokens=8, temperature=0.8, seed=99))])
    assert other["x"].text != together[QUESTIONS[0]].text


def test_sampling_draws_from_the_softmax() -> None:
    """Gumbel noise on logits: the frequencies of 20,000 draws against the probabilities."""
    import torch

    logits = torch.tensor([[0.0, 1.0, 2.0, -1.0]])
    samplers = [Sampler(Sampling(temperature=0.7, seed=seed)) for seed in range(20_000)]
    drawn = score(logits.repeat(20_000, 1), samplers).argmax(-1)
    shares = torch.bincount(drawn, minlength=4) / 20_000
    assert torch.allclose(shares, (logits[0] / 0.7).softmax(-1), atol=0.015)


def test_the_nucleus_is_the_smallest_set_that_holds_so_much() -> None:
    import torch

    logits = torch.log(torch.tensor([[0.1, 0.5, 0.15, 0.25], [0.97, 0.01, 0.01, 0.01]]))
    kept = keep_nucleus(logits, 0.6).isfinite()
    assert kept.tolist() == [[False, True, False, True], [True, False, False, False]]


def test_a_conversation_that_is_too_long_fails_alone(tiny_chat: str) -> None:
    long = ChatRequest("long", user("word " * 200), Sampling(max_tokens=4))
    replies = ask(tiny_chat, [long, ChatRequest("short", user("say"), Sampling(max_tokens=4))])
    assert replies["short"].ok and "tokens, tiny holds 96" in replies["long"].error


def test_a_stop_ends_an_answer_and_is_no_part_of_it(tiny_chat: str) -> None:
    whole = ask(tiny_chat, [ChatRequest("q", user(QUESTIONS[0]), Sampling(max_tokens=24))])["q"].text
    stop = whole[len(whole) // 2 :][:2]
    cut = ask(tiny_chat, [ChatRequest("q", user(QUESTIONS[0]), Sampling(max_tokens=24, stop=(stop,)))])["q"]
    assert cut.text == whole[: whole.index(stop)] and cut.finish_reason == "stop"


def test_a_model_that_is_not_there_is_refused_in_words(tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailable, match="gone cannot be loaded: there is no such folder"):
        check_models([HfModel(name="gone", path=str(tmp_path / "nothing"))])
    address = OpenAiModel(name="away", model="m", base_url="http://127.0.0.1:9/v1")
    with pytest.raises(ModelUnavailable, match="away cannot be reached"):
        check_models([address])


def test_the_same_files_elsewhere_are_the_same_model(tiny_chat: str, tmp_path: Path) -> None:
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(tiny_chat, copy)
    here, there = HfModel(name="a", path=tiny_chat), HfModel(name="b", path=str(copy), batch_size=2)
    assert identity(here) == identity(there)
    (copy / "config.json").write_text((copy / "config.json").read_text() + " ")
    assert identity(here) != identity(there)


def test_a_scripted_model_follows_rules_and_replays(tmp_path: Path) -> None:
    recording = tmp_path / "replay.jsonl"
    lines = [{"messages": list(user("hello")), "text": text} for text in ("first", "second")]
    recording.write_text("".join(json.dumps(line) + "\n" for line in lines))
    rules = (Rule(pattern=r"(\d+) plus one", reply=r"\1 and one more"),)
    settings = ScriptedModel(name="s", rules=rules, replay=str(recording))
    asked = {"hello": None, "6 plus one": None, "what?": None}
    with open_model(settings) as model:
        replies = {reply.key: reply for reply in model.chat(ChatRequest(q, user(q)) for q in asked)}
        again = next(iter(model.chat([ChatRequest("h", user("hello"), Sampling(seed=1))])))
    assert replies["hello"].text == "first" and again.text == "second"
    assert replies["6 plus one"].text == "6 and one more"
    assert "no rule and no recording for 'what?'" in replies["what?"].error
    recording.write_text('{"messages": "hello", "text": "x"}\n')
    with pytest.raises(InputError, match="'messages' holds a text, not a list"):
        open_model(settings)


def random_model(kind: str) -> Any:
    """A model of two layers and 60 tokens with random weights."""
    import torch
    import transformers

    torch.manual_seed(1)
    size: dict[str, Any] = {"vocab_size": 60, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    rotary = size | {"num_key_value_heads": 2, "intermediate_size": 64, "max_position_embeddings": 256}
    configs: dict[str, Callable[[], Any]] = {
        "llama": lambda: transformers.LlamaConfig(**rotary),
        "learned positions": lambda: transformers.GPT2Config(vocab_size=60, n_embd=32, n_layer=2, n_head=4),
        "repetition penalty": lambda: transformers.LlamaConfig(**rotary),
        "sliding window": lambda: transformers.MistralConfig(**rotary, sliding_window=8),
        "no positions": lambda: transformers.BloomConfig(vocab_size=60, hidden_size=32, n_layer=2, n_head=4),
        "convolutions": lambda: transformers.Lfm2Config(**rotary, layer_types=["conv", "full_attention"]),
        "no repetition": lambda: transformers.LlamaConfig(**rotary),
    }
    model = transformers.AutoModelForCausalLM.from_config(configs[kind]()).eval()
    model.generation_config.eos_token_id = model.generation_config.pad_token_id = None
    if kind == "repetition penalty":
        model.generation_config.repetition_penalty = 3.0
    if kind == "no repetition":
        model.generation_config.no_repeat_ngram_size = 2
    return louder(model)


def louder(model: Any) -> Any:
    """The model with matrices so large that it clearly prefers some token, and another one after other words."""
    import torch

    with torch.no_grad():
        for weights in model.parameters():
            if weights.ndim == 2:
                weights.mul_(8)
    return model


def random_prompts(count: int) -> list[list[int]]:
    """Prompts of 1 to 20 tokens; every third comes three times."""
    import torch

    drawn = torch.Generator().manual_seed(2)
    lengths = torch.randint(1, 21, (count,), generator=drawn).tolist()
    prompts: list[list[int]] = [torch.randint(0, 60, (n,), generator=drawn).tolist() for n in lengths]
    return [prompt for number, prompt in enumerate(prompts) for _ in range(1 if number % 3 else 3)]


def answers_to(prompts: Sequence[Sequence[int]], limits: Sequence[int], ends: set[int]) -> list[Answer]:
    """Greedy answers to be."""
    return [Answer(tuple(p), Sampler(Sampling()), limit, ends) for p, limit in zip(prompts, limits, strict=True)]


@pytest.mark.parametrize(
    ("kind", "by_rows"),
    [
        ("llama", True),
        ("learned positions", True),
        ("repetition penalty", True),
        ("sliding window", True),
        ("no positions", False),
        ("convolutions", False),
        ("no repetition", False),
    ],
)
def test_a_batch_of_any_lengths_decodes_as_transformers_does_one_at_a_time(kind: str, by_rows: bool) -> None:
    import torch

    model, prompts = random_model(kind), random_prompts(12)
    whole = [
        model.generate(torch.tensor([p]), max_new_tokens=40, do_sample=False)[0, len(p) :].tolist() for p in prompts
    ]
    limits = [5 + 7 * number % 36 for number in range(len(prompts))]
    # Tokens that end the first answers early, and others late or never.
    ends = {whole[0][2], whole[1][9], whole[-1][20]}
    until = [next((place for place, token in enumerate(answer) if token in ends), 40) for answer in whole]
    expected = [answer[: min(end, limit)] for answer, end, limit in zip(whole, until, limits, strict=True)]
    assert len({len(answer) for answer in expected}) > 4
    assert has_rows(model) == by_rows
    answers = answers_to(prompts, limits, ends)
    generate(model, answers)
    assert [answer.tokens for answer in answers] == expected


def test_equal_prompts_are_read_once_and_ended_answers_are_computed_no_longer() -> None:
    model, prompts = random_model("llama"), random_prompts(9)
    read: list[tuple[int, int]] = []
    model.register_forward_pre_hook(lambda _, __, given: read.append(tuple(given["input_ids"].shape)), with_kwargs=True)
    limits = [1 + number % 12 for number in range(len(prompts))]
    answers = answers_to(prompts, limits, set())
    generate(model, answers)
    assert [len(answer.tokens) for answer in answers] == limits
    assert read[0] == (9, max(map(len, prompts))) and len(prompts) == 15
    assert read[1:] == [(sum(limit > step for limit in limits), 1) for step in range(1, max(limits))]


def test_candidates_of_one_conversation_are_what_each_would_be_alone(tiny_chat: str, tmp_path: Path) -> None:
    import shutil

    from transformers import AutoModelForCausalLM

    shutil.copytree(tiny_chat, tmp_path / "loud")
    louder(AutoModelForCausalLM.from_pretrained(tiny_chat)).save_pretrained(tmp_path / "loud")
    asked = [
        ChatRequest(
            f"{q} {seed}", user(q), Sampling(max_tokens=30, temperature=2.0, top_p=0.95, seed=seed, stop=("e",))
        )
        for q in QUESTIONS[:4]
        for seed in range(6)
    ]
    together = ask(str(tmp_path / "loud"), asked, batch_size=64)
    alone = ask(str(tmp_path / "loud"), asked, batch_size=1)
    assert len({reply.text for reply in together.values()}) > 20
    assert len({reply.completion_tokens for reply in together.values()}) > 5
    for key, reply in together.items():
        assert (reply.text, reply.finish_reason, reply.completion_tokens) == (
            alone[key].text,
            alone[key].finish_reason,
            alone[key].completion_tokens,
        )


def test_an_answer_ends_with_the_token_that_completes_a_stop(tiny_chat: str) -> None:
    """Each is the shortest beginning, of what is said without stops, whose text holds one of them."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(tiny_chat), AutoModelForCausalLM.from_pretrained(tiny_chat)
    prompts = [tokenizer(question)["input_ids"] for question in QUESTIONS * 4]
    stops = ("or", "e", "#\n", "é")

    def tokens(stops: tuple[str, ...]) -> list[list[int]]:
        stopped, ends = stops_in(tokenizer, stops), {tokenizer.eos_token_id}
        answers = [
            Answer(tuple(prompt), Sampler(Sampling(temperature=1.0, seed=seed)), 40, ends, stopped)
            for seed, prompt in enumerate(prompts)
        ]
        generate(model, answers)
        return [answer.tokens for answer in answers]

    def holds(tokens: list[int]) -> bool:
        text = tokenizer.decode(tokens, skip_special_tokens=True)
        return any(stop in text for stop in stops)

    whole, stopped = tokens(()), tokens(stops)
    assert sum(map(holds, whole)) > 10
    for before, after in zip(whole, stopped, strict=True):
        assert after == next((before[:n] for n in range(1, len(before)) if holds(before[:n])), before)


def test_each_answer_may_fill_the_context_whatever_shares_its_batch(tiny_chat: str) -> None:
    asked = [ChatRequest(str(n), user("say " * n), Sampling(max_tokens=200)) for n in (1, 15, 30)]
    together, alone = ask(tiny_chat, asked, batch_size=4), ask(tiny_chat, asked, batch_size=1)
    for key, reply in together.items():
        assert reply.text == alone[key].text and reply.finish_reason == "length"
        assert reply.prompt_tokens + reply.completion_tokens == 96
