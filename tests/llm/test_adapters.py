"""Adapters over one model answer as if each were merged into a model of its own, in one batch too."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from squadron.core.folder import Folder
from squadron.llm.backends.hf import HfChat
from squadron.llm.chat import ChatRequest, ModelUnavailable, Sampling
from squadron.llm.settings import HfModel
from squadron.serve import openai_requests as api
from squadron.serve.chat import ChatServer, chat_service
from squadron.serve.service import Service, compose
from tests.llm.tiny import Adapted, store_tiny_adapters, store_tiny_chat

WORDS = [f"say {number} words, please" + " now" * (number % 7) for number in range(9)]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Adapted:
    folder = tmp_path_factory.mktemp("models")
    return store_tiny_adapters(folder, store_tiny_chat(folder / "base", WORDS * 4))


@pytest.fixture(scope="module")
def server(models: Adapted) -> Iterator[ChatServer]:
    server = ChatServer(HfModel(name="base", path=models.base), 16, models.adapters)
    yield server
    server.close()


def asked(model: str, text: str, **settings: Any) -> api.ChatCompletionRequest:
    messages = [{"role": "user", "content": text}]
    return api.ChatCompletionRequest.model_validate({"model": model, "messages": messages, **settings})


def test_one_batch_answers_as_merged_models_do(server: ChatServer, models: Adapted) -> None:
    settings = [{"temperature": 0.9 * (number % 2), "seed": number, "max_tokens": 4 + number} for number in range(9)]
    pairs = [(name, number) for number in range(9) for name in models.adapters]

    async def ask_all() -> list[Any]:
        async def ask(place: int, name: str, number: int) -> Any:
            await asyncio.sleep(0.003 * place)
            return await server.chat(asked(name, WORDS[number], **settings[number]))

        return await asyncio.gather(*(ask(place, *pair) for place, pair in enumerate(pairs)))

    texts: dict[str, list[str]] = {name: [] for name in models.adapters}
    for answer in asyncio.run(ask_all()):
        texts[answer.model].append(answer.choices[0].message.content)
    for name, path in models.merged.items():
        with HfChat(HfModel(name=name, path=path)) as alone:
            for number, said in enumerate(texts[name]):
                request = ChatRequest("", ({"role": "user", "content": WORDS[number]},), Sampling(**settings[number]))
                (expected,) = alone.chat([request])
                assert said == expected.text
    assert len({tuple(said) for said in texts.values()}) == 3


def test_embeddings_are_those_of_merged_models(server: ChatServer, models: Adapted) -> None:
    async def embed(of: ChatServer, name: str) -> Any:
        request = api.EmbeddingRequest.model_validate({"model": name, "input": WORDS})
        return [row.embedding for row in (await of.embed(request)).data]

    for name, path in models.merged.items():
        alone = ChatServer(HfModel(name=name, path=path), 4)
        expected = asyncio.run(embed(alone, name))
        alone.close()
        assert np.allclose(asyncio.run(embed(server, name)), expected, atol=1e-5)


def test_what_is_over_one_model_is_one_service(models: Adapted, tmp_path: Path) -> None:
    one, other = (folder for folder in models.adapters.values() if folder)
    elsewhere = Service("elsewhere", dict, ())
    services = [chat_service("a", models.base, adapter=one), elsewhere, chat_service("a", models.base, adapter=other)]
    first, second, third = compose([*services, chat_service("b", models.base), chat_service("c", "org/model")])[:3]
    assert first.models == ("a", "a-2", "b") and second.name == "elsewhere" and third.models == ("c",)
    server = first.build()
    try:
        answer = asyncio.run(server.chat(asked("a-2", WORDS[0], temperature=0)))
        assert answer.model == "a-2" and answer.choices[0].message.content
    finally:
        server.close()


def test_models_and_adapters_behind_urls(server: ChatServer, models: Adapted) -> None:
    for path in (models.base, models.adapters["model.0"]):
        for file in Path(path).iterdir():
            Folder(f"memory://served/{Path(path).name}").write_bytes(file.name, file.read_bytes())
    service = chat_service("far", "memory://served/base", adapter="memory://served/model.0")
    far = service.build()
    try:
        answers = [asyncio.run(far.chat(asked("far", text, temperature=0, max_tokens=8))) for text in WORDS[:3]]
    finally:
        far.close()
    for answer, text in zip(answers, WORDS, strict=False):
        expected = asyncio.run(server.chat(asked("model.0", text, temperature=0, max_tokens=8)))
        assert answer.choices[0].message == expected.choices[0].message


def test_what_is_no_adapter_of_this_model_is_refused(models: Adapted, tmp_path: Path) -> None:
    from peft import LoraConfig, PromptTuningConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    def build(folder: Path) -> None:
        ChatServer(HfModel(name="m", path=models.base), 4, {"m": str(folder)})

    with pytest.raises(ModelUnavailable, match=r"no adapter_config\.json"):
        build(tmp_path)
    prompts = PromptTuningConfig(num_virtual_tokens=2, task_type="CAUSAL_LM")
    get_peft_model(AutoModelForCausalLM.from_pretrained(models.base), prompts).save_pretrained(tmp_path / "prompts")
    with pytest.raises(ModelUnavailable, match="PROMPT_TUNING"):
        build(tmp_path / "prompts")
    whole = Path(models.adapters["model.0"])
    for file, kept in (
        ("adapter_model.safetensors", 1000),
        ("adapter_model.safetensors", 0),
        ("adapter_config.json", 0),
    ):
        cut = shutil.copytree(whole, tmp_path / "cut", dirs_exist_ok=True)
        (cut / file).write_bytes((whole / file).read_bytes()[:kept])
        with pytest.raises(ModelUnavailable, match="m cannot be loaded"):
            build(cut)
    broken = shutil.copytree(models.base, tmp_path / "broken")
    (broken / "model.safetensors").write_bytes(b"")
    with pytest.raises(ModelUnavailable, match="m cannot be loaded"):
        ChatServer(HfModel(name="m", path=str(broken)), 4)
    larger = AutoModelForCausalLM.from_pretrained(models.base)
    larger.config.hidden_size = 128
    larger = type(larger)(larger.config)
    get_peft_model(larger, LoraConfig(r=4, target_modules=["q_proj"])).save_pretrained(tmp_path / "larger")
    with pytest.raises(ModelUnavailable, match="m cannot be loaded"):
        build(tmp_path / "larger")
