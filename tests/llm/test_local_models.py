"""Models in this process: answers depend on what was asked, not on what was asked beside it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from squadron.core.errors import InputError
from squadron.llm.chat import ChatRequest, ModelUnavailable, Sampling, user
from squadron.llm.hf import HfChat
from squadron.llm.providers import check_models, identity, open_model
from squadron.llm.settings import HfModel, OpenAiModel, Rule, ScriptedModel

QUESTIONS = [f"say {number} words, please" + " now" * (number % 7) for number in range(9)]


@pytest.fixture(scope="module")
def tiny_chat(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A Llama of two layers with random weights, its tokenizer and a chat template, on disk."""
    import torch

    from squadron.train.models import FromConfig
    from squadron.train.tokenizer import train_tokenizer

    folder = tmp_path_factory.mktemp("models") / "chat"
    folder.mkdir()
    vocabulary = train_tokenizer(QUESTIONS * 4, 300, folder)
    torch.manual_seed(0)
    size: dict[str, Any] = {"hidden_size": 64, "layers": 2, "heads": 4, "kv_heads": 2, "intermediate_size": 128}
    special = {"pad_token_id": 0, "eos_token_id": 1}
    FromConfig(vocabulary=vocabulary, context=96, special_tokens=special, **size)().save_pretrained(folder)
    return str(folder)


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

    from squadron.llm.hf import _SampleByGumbel

    logits = torch.tensor([[0.0, 1.0, 2.0, -1.0]])
    sampler = _SampleByGumbel(Sampling(temperature=0.7), [5] * 20_000, torch.device("cpu"))
    sampler._generators = [torch.Generator().manual_seed(n) for n in range(20_000)]
    drawn = sampler(torch.zeros(20_000, 1), logits.expand(20_000, 4)).argmax(-1)
    shares = torch.bincount(drawn, minlength=4) / 20_000
    assert torch.allclose(shares, (logits[0] / 0.7).softmax(-1), atol=0.015)


def test_the_nucleus_is_the_smallest_set_that_holds_so_much() -> None:
    import torch

    from squadron.llm.hf import keep_nucleus

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
    with pytest.raises(ModelUnavailable, match=r"gone is not there: no config\.json"):
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
    with pytest.raises(InputError, match="expected messages with role and content"):
        open_model(settings)
