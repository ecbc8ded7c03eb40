"""Stand-ins for families of published models."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from squadron.core.errors import ConfigError, InputError
from squadron.core.folder import Folder
from squadron.core.inputs import InputPath, check_inputs
from squadron.methods.finetune.config import StartConfig
from squadron.train.models.base import find_model
from squadron.train.models.families import FAMILIES, find_family, make_family_model, read_template, template_text
from squadron.train.text.endings import answer_end
from squadron.train.text.tokenizer import load_tokenizer

ROOT = Path(__file__).resolve().parents[2]
CHATTING = [name for name, family in FAMILIES.items() if family.chats]
TEXT = "Hello  world 1234, it's Zwölf 你好\n\n x"

Made = Callable[..., str]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """`made(family, …)`: the folder of a stand-in, written once."""

    @cache
    def make(name: str, **options: Any) -> str:
        return make_family_model(tmp_path_factory.mktemp("family") / name, name, **options)

    return make


@pytest.mark.parametrize("name", CHATTING)
def test_chat_families_load_render_and_generate(made: Made, name: str) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    family, folder = FAMILIES[name], made(name)
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
    assert model.config.model_type == family.model_type
    assert model.get_input_embeddings().weight.shape[0] >= len(tokenizer)
    tied = model.get_input_embeddings().weight is model.get_output_embeddings().weight
    assert tied == family.tied
    assert tokenizer.eos_token == family.eos and tokenizer.bos_token == family.bos
    assert tokenizer.convert_tokens_to_ids(list(family.stops)) == _as_list(model.generation_config.eos_token_id)

    talk = [{"role": "user", "content": "What is 1 + 1?"}, {"role": "assistant", "content": "Two."}]
    if name != "gemma2":  # whose template refuses a system prompt
        talk = [{"role": "system", "content": "Be brief."}, *talk]
    text = tokenizer.apply_chat_template(talk, tokenize=False)
    assert all(message["content"] in text for message in talk)
    asked = tokenizer.apply_chat_template(talk[:-1], add_generation_prompt=True, return_dict=True, return_tensors="pt")
    answered = model.generate(**asked, max_new_tokens=2, min_new_tokens=2, do_sample=False)
    assert answered.shape[1] == asked["input_ids"].shape[1] + 2


@pytest.mark.parametrize("name", FAMILIES)
def test_every_special_token_is_one_token_and_texts_come_back(made: Made, name: str) -> None:
    from transformers import AutoTokenizer

    family = FAMILIES[name]
    tokenizer = AutoTokenizer.from_pretrained(made(name, kind="causal" if family.chats else "encoder"))
    for token in [*family.tokens(), *family.words]:
        assert tokenizer(token, add_special_tokens=False)["input_ids"] == [tokenizer.convert_tokens_to_ids(token)]
    ids = tokenizer(TEXT)["input_ids"]
    begins = family.adds_bos or family.encodes
    assert (ids[0] in (tokenizer.bos_token_id, tokenizer.cls_token_id)) == begins
    if family.encodes:
        assert ids[-1] == tokenizer.sep_token_id
    else:
        assert tokenizer.decode(tokenizer(TEXT, add_special_tokens=False)["input_ids"]) == TEXT


@pytest.mark.parametrize("name", ["qwen2.5", "llama3.1", "gemma2"])
def test_base_models_end_texts_otherwise_and_few_have_a_template(made: Made, name: str) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    family, folder = FAMILIES[name], made(name, base=True)
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
    assert tokenizer.eos_token == (family.base_eos or family.eos)
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id
    assert bool(tokenizer.chat_template) == (name == "qwen2.5")


@pytest.mark.parametrize("kind", ["sequence", "token"])
def test_reward_models_and_classifiers(made: Made, kind: str) -> None:
    import transformers

    heads = {"sequence": "AutoModelForSequenceClassification", "token": "AutoModelForTokenClassification"}
    model, told = getattr(transformers, heads[kind]).from_pretrained(
        made("qwen2.5", kind=kind, labels=2), output_loading_info=True
    )
    assert model.config.num_labels == 2 and not told["missing_keys"]


def test_the_same_seed_gives_the_same_model(tmp_path: Path) -> None:
    one, two = (make_family_model(tmp_path / place, "qwen3") for place in ("one", "two"))
    for file in ("model.safetensors", "tokenizer.json"):
        assert (Path(one) / file).read_bytes() == (Path(two) / file).read_bytes()


@pytest.mark.parametrize(
    ("hub_name", "family", "base"),
    [
        ("Qwen/Qwen2.5-7B", "qwen2.5", True),
        ("Qwen/Qwen2.5-Math-7B-Instruct", "qwen2.5", False),
        ("Tower-Babel/Babel-9B", "qwen2.5", True),
        ("Qwen/Qwen3-0.6B", "qwen3", False),
        ("Qwen/Qwen3-Embedding-0.6B", "qwen3-embedding", False),
        ("meta-llama/Meta-Llama-3-8B-Instruct", "llama3", False),
        ("meta-llama/Llama-3.1-8B", "llama3.1", True),
        ("meta-llama/Llama-3.2-3B-Instruct", "llama3.2", False),
        ("google/gemma-2-9b-it", "gemma2", False),
        ("google/gemma-3-1b-pt", "gemma3", True),
        ("microsoft/Phi-3-mini-128k-instruct", "phi3", False),
        ("microsoft/Phi-3.5-mini-instruct", "phi3.5", False),
        ("CohereLabs/aya-expanse-8b", "cohere", False),
        ("deepseek-ai/DeepSeek-R1-Distill-Qwen-7B", "deepseek_r1_distill", False),
        ("deepseek-ai/DeepSeek-V3", "deepseekv3", False),
        ("openai/gpt-oss-20b", "gptoss", False),
        ("jinaai/jina-embeddings-v3-hf", "jina-embeddings-v3", False),
        ("FacebookAI/xlm-roberta-large", "xlm-roberta", False),
        ("microsoft/infoxlm-large", "xlm-roberta", False),
        ("facebook/xlm-roberta-xl", "xlm-roberta-xl", False),
        ("Qwen/Qwen2.5-VL-7B-Instruct", None, None),
    ],
)
def test_families_are_found_by_names_of_the_hub(hub_name: str, family: str | None, base: bool | None) -> None:
    found = find_family(hub_name)
    assert (found.name if found else None) == family
    assert (found.is_base(hub_name) if found else None) == base


def test_every_model_that_a_configuration_names_has_a_family() -> None:
    owners = ("Qwen", "meta-llama", "google", "microsoft", "Tower-Babel", "jinaai")
    named = {
        name
        for file in (ROOT / "configs").rglob("*.yaml")
        for name in _strings(yaml.safe_load(file.read_text()))
        if name.split("/")[0] in owners and name.count("/") == 1
    }
    assert len(named) > 20
    assert {name for name in named if find_family(name) is None} == set()


def test_an_unknown_family_is_refused_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"qwen2\.5"):
        make_family_model(tmp_path, "qwen2_5")


def test_a_template_is_named_in_the_settings_by_family_or_file(tmp_path: Path) -> None:
    own = tmp_path / "own.jinja"
    own.write_text("{{ messages[0].content }}")
    assert read_template("llama3.1") == template_text("llama3.1")
    assert read_template(str(own)) == "{{ messages[0].content }}"
    with pytest.raises(ConfigError, match=r"llama3\.1"):
        read_template("llama31")
    assert not isinstance(StartConfig(chat_template="llama3.1").chat_template, InputPath)
    assert isinstance(StartConfig(chat_template=str(own)).chat_template, InputPath)
    with pytest.raises(InputError, match="no such file"):
        check_inputs(StartConfig(chat_template="none.jinja"))


def test_a_model_without_a_template_takes_the_one_that_is_named(made: Made, tmp_path: Path) -> None:
    model = find_model(made("gemma2", base=True)).model_copy(update={"chat_template": template_text("gemma2")})
    tokenizer = model.load_tokenizer(Folder(str(tmp_path)))
    assert tokenizer.convert_ids_to_tokens(answer_end(tokenizer, chat=True)) == "<end_of_turn>"
    tokenizer.save_pretrained(tmp_path)
    assert load_tokenizer(str(tmp_path)).chat_template == template_text("gemma2")


def _strings(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [text for part in (*value.keys(), *value.values()) for text in _strings(part)]
    if isinstance(value, list):
        return [text for part in value for text in _strings(part)]
    return [value] if isinstance(value, str) else []


def _as_list(ids: Any) -> list[int]:
    return ids if isinstance(ids, list) else [ids]
