"""A tuned model stops where its chat template ends a turn: every family, through every provider that runs here.

One small base model of each family learns two conversations by heart, in the rows that fine-tuning makes of them. Then
it is exported and asked.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from squadron.core.folder import Folder
from squadron.llm.backends.hf import HfChat
from squadron.llm.chat import ChatReply, ChatRequest, Message, Sampling, user
from squadron.llm.providers import open_model
from squadron.llm.settings import HfModel, OpenAiModel
from squadron.methods.finetune.config import DataConfig, SamplesConfig
from squadron.methods.finetune.encoding import encoder
from squadron.methods.finetune.samples import answer
from squadron.serve.chat import ChatServer, chat_service
from squadron.serve.gateway import make_app
from squadron.serve.spec import ServeSpec
from squadron.train.checkpoints.checkpoint import Reader
from squadron.train.checkpoints.export import export
from squadron.train.models.builders import Pretrained
from squadron.train.models.families import FAMILIES, make_family_model, template_text
from squadron.train.text.endings import answer_end, stop_tokens, turn_end
from tests.drivers import free_port
from tests.llm.here import Here
from tests.train.store import write_checkpoint

CHATTING = [name for name, family in FAMILIES.items() if family.chats]
ENDS = {
    "llama3": "<|eot_id|>",
    "llama3.1": "<|eot_id|>",
    "llama3.2": "<|eot_id|>",
    "qwen2.5": "<|im_end|>",
    "qwen3": "<|im_end|>",
    "gemma2": "<end_of_turn>",
    "gemma3": "<end_of_turn>",
    "phi3": "<|end|>",
    "phi3.5": "<|end|>",
    "cohere": "<|END_OF_TURN_TOKEN|>",
    "cohere2": "<|END_RESPONSE|>",
    "deepseekv3": "<｜end▁of▁sentence｜>",
    "deepseek_r1_distill": "<｜end▁of▁sentence｜>",
    "deepseek_r1_distill_llama": "<｜end▁of▁sentence｜>",
    "gptoss": "<|return|>",
    "glm4moe": "<|user|>",
    "lfm2": "<|im_end|>",
}
TRAINED = [name for name in CHATTING if name != "lfm2"]
"""All but those with layers besides attention, which are refused."""
LEARNED = {"What is 2 plus 2?": "It is 4, of course.", "Name a colour.": "Green"}
TALK = (*user("Name a tree."), {"role": "assistant", "content": "Oak"}, *user("And another?"))
"""A conversation, whose second answer is `SECOND`."""
SECOND = "A birch."
QUESTIONS, ANSWERS = [*map(user, LEARNED), TALK], [*LEARNED.values(), SECOND]
SAMPLING = Sampling(max_tokens=24)


@dataclass(frozen=True)
class Tuned:
    """A base model, and the folder of what it became."""

    base: str
    tuned: str
    tokenizer: Any


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Tuned]:
    """`tuned(family)`: a base model that has learned `LEARNED` by heart, exported."""

    @cache
    def make(name: str) -> Tuned:
        folder = tmp_path_factory.mktemp("models")
        base = store_base(folder / "base", name)
        return Tuned(base, learn(base, folder), load(base))

    return make


def store_base(folder: Path, name: str) -> str:
    """A base model of a family; with the family's template, which not all base models have."""
    path = make_family_model(
        folder, name, base=True, texts=[*LEARNED, *ANSWERS, *(turn["content"] for turn in TALK)], seed=1
    )
    tokenizer = load(path)
    tokenizer.chat_template = template_text(name)
    tokenizer.save_pretrained(path)
    return path


def load(path: str) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(path)


def learn(base: str, folder: Path) -> str:
    """Train on completions and on a conversation until they are known, and export from a checkpoint."""
    import torch

    encode = encoder("sft", DataConfig(chat=True), load(base))
    rows = [row for prompt, said in LEARNED.items() for row in encode({"prompt": prompt, "completion": said})]
    rows += encode({"messages": [*TALK, {"role": "assistant", "content": SECOND}]})
    build = Pretrained(base)
    model = build()
    scaled = hasattr(model.config, "logit_scale")  # a sixteenth: gradients are small
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-2 if scaled else 1e-2)
    batch = [{name: torch.tensor([row[name]]) for name in ("input_ids", "labels")} for row in rows]
    for _ in range(400):
        loss = sum(model(**one).loss for one in batch)
        if loss.item() < 0.02:
            break
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    store = Folder(str(folder / "store"))
    write_checkpoint(store, model)
    with Reader(store, 1) as reader:
        return export(build, reader, folder / "tuned", tokenizer=base, clean_process=False).path


def ask(model: Any, questions: list[tuple[Message, ...]]) -> list[ChatReply]:
    with model:
        replies = {r.key: r for r in model.chat([ChatRequest(str(n), q, SAMPLING) for n, q in enumerate(questions)])}
    return [replies[str(number)] for number in range(len(questions))]


@contextmanager
def served(path: str) -> Iterator[OpenAiModel]:
    """The model at an address of this machine, as `squadron serve` gives it."""
    server = ChatServer(HfModel(name="tuned", path=path), max_rows=4)
    port = free_port()
    app = make_app([chat_service("tuned", path)], Here(server), ServeSpec(port=port), [])
    web = uvicorn.Server(uvicorn.Config(app, port=port, log_level="error"))
    thread = threading.Thread(target=web.run, daemon=True)
    thread.start()
    while not web.started:
        thread.join(0.01)
    try:
        yield OpenAiModel(name="tuned", model="tuned", base_url=f"http://127.0.0.1:{port}/v1", api_key_env=None)
    finally:
        web.should_exit = True
        thread.join()
        server.close()


@pytest.mark.parametrize("name", CHATTING)
def test_the_end_of_a_turn_is_found_from_the_template(tmp_path: Path, name: str) -> None:
    tokenizer = load(store_base(tmp_path / "base", name))
    end = tokenizer.convert_tokens_to_ids(ENDS[name])
    assert turn_end(tokenizer) == answer_end(tokenizer, chat=True) == end
    assert answer_end(tokenizer, chat=False) == tokenizer.eos_token_id
    assert set(stop_tokens(tokenizer, [7, 8])) == {7, 8, end, tokenizer.eos_token_id}


def test_without_a_template_or_a_special_token_an_answer_ends_with_the_text(tmp_path: Path) -> None:
    tokenizer = load(make_family_model(tmp_path / "base", "llama3", base=True))
    assert turn_end(tokenizer) is None
    assert answer_end(tokenizer, chat=True) == tokenizer.eos_token_id
    tokenizer.chat_template = "{% for m in messages %}### {{ m.role }}\n{{ m.content }}\n{% endfor %}"
    assert turn_end(tokenizer) is None
    assert stop_tokens(tokenizer) == [tokenizer.eos_token_id]


def plain(text: str) -> str:
    """An answer without what templates begin one with: empty thoughts (Qwen3), the name of a channel (gpt-oss)."""
    return text.rpartition("</think>")[2].strip().removeprefix("final")


@pytest.mark.parametrize("name", TRAINED)
def test_a_tuned_model_stops_after_what_it_has_learned(tuned: Callable[[str], Tuned], name: str) -> None:
    """By the hf provider, by transformers alone, and by the samples of a fine-tuning run."""
    import torch
    from transformers import AutoModelForCausalLM

    made = tuned(name)
    replies = ask(HfChat(HfModel(name="tuned", path=made.tuned)), QUESTIONS)
    assert [(plain(reply.text), reply.finish_reason) for reply in replies] == [(said, "stop") for said in ANSWERS]

    model: Any = AutoModelForCausalLM.from_pretrained(made.tuned)
    encode = encoder("sft", DataConfig(chat=True), made.tokenizer)
    prompts = []
    for asked, said in LEARNED.items():
        (row,) = encode({"prompt": asked, "completion": said})
        prompt = [token for token, label in zip(row["input_ids"], row["labels"], strict=True) if label < 0]
        out = model.generate(torch.tensor([prompt]), max_new_tokens=24, do_sample=False)[0, len(prompt) :].tolist()
        assert len(out) < 24
        assert plain(made.tokenizer.decode(out, skip_special_tokens=True)) == said
        prompts.append(prompt)
    texts = answer(made.tuned, None, prompts, made.tokenizer, SamplesConfig(max_new_tokens=24))
    assert [plain(text) for text in texts] == list(LEARNED.values())


@pytest.mark.parametrize("name", TRAINED)
def test_a_served_model_stops_after_what_it_has_learned(tuned: Callable[[str], Tuned], name: str) -> None:
    with served(tuned(name).tuned) as settings:
        replies = ask(open_model(settings), QUESTIONS)
    assert [(plain(reply.text), reply.finish_reason) for reply in replies] == [(said, "stop") for said in ANSWERS]


@pytest.mark.parametrize("name", TRAINED)
def test_an_export_names_the_ends_of_the_base_and_of_the_turn(tuned: Callable[[str], Tuned], name: str) -> None:
    made = tuned(name)
    settings = json.loads((Path(made.tuned) / "generation_config.json").read_text())
    end = made.tokenizer.convert_tokens_to_ids(ENDS[name])
    assert set(settings["eos_token_id"]) == {made.tokenizer.eos_token_id, end}


@pytest.mark.parametrize("name", TRAINED)
def test_preferences_end_as_completions_do(tuned: Callable[[str], Tuned], name: str) -> None:
    tokenizer, data = tuned(name).tokenizer, DataConfig(chat=True)
    asked, said = next(iter(LEARNED.items()))
    (row,) = encoder("sft", data, tokenizer)({"prompt": asked, "completion": said})
    (pair,) = encoder("dpo", data, tokenizer)({"prompt": asked, "chosen": said, "rejected": "No."})
    assert pair["prompt_ids"] + pair["chosen_ids"] == row["input_ids"]
    assert ENDS[name] in tokenizer.convert_ids_to_tokens(pair["rejected_ids"])
