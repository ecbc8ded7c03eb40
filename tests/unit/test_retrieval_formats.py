"""Formats: what a model reads of a query, an instruction and a document."""

from __future__ import annotations

import pytest

from squadron.core.errors import ConfigError
from squadron.llm.embed import OpenAiEmbedder, PackagedEmbedder, SentenceTransformersEmbedder
from squadron.retrieval.documents import Query
from squadron.retrieval.formats import (
    FORMATS,
    document_text,
    embedder_format,
    find_format,
    named_format,
    query_text,
    query_texts,
)
from squadron.retrieval.index_files import IndexConfig


@pytest.mark.parametrize(
    ("model", "instructed", "bare", "document"),
    [
        ("intfloat/e5-base-v2", "Instruct: I\nquery: Q", "query: Q", "passage: D"),
        ("e5-toolret", "Instruct: I\nquery: Q", "query: Q", "D"),
        ("intfloat/multilingual-e5-large-instruct", "Instruct: I\nQuery: Q", "Q", "D"),
        ("intfloat/e5-mistral-7b-instruct", "Instruct: I\nQuery: Q", "Q", "D"),
        ("BAAI/bge-large-en-v1.5", "Instruct: I\nQuery: Q", "Q", "D"),
        ("thenlper/gte-base", "Instruct: I\nQuery: Q", "Q", "D"),
        ("Alibaba-NLP/gte-Qwen2-1.5B-instruct", "Instruct: I\nQuery: Q", "Q", "D"),
        ("facebook/contriever-msmarco", "Instruct: I\nQuery: Q", "Q", "D"),
        ("sentence-transformers/all-MiniLM-L6-v2", "Instruct: I\nQuery: Q", "Q", "D"),
        ("nvidia/NV-Embed-v1", "Instruct: I\nQuery: Q</s>", "Q</s>", "D"),
        ("GritLM/GritLM-7B", "<|user|>\nI\n<|embed|>\nQ", "<|embed|>\nQ", "<|embed|>\nD"),
        ("Qwen/Qwen3-Embedding-0.6B", "Instruct: I\nQuery:Q", "Q", "D"),
        ("somebody/unknown", "Instruct: I\nQuery: Q", "Q", "D"),
        ("plain", "I Q", "Q", "D"),
    ],
)
def test_texts_of_a_family(model: str, instructed: str, bare: str, document: str) -> None:
    form = find_format(model)
    assert query_text(form, "Q", "I") == instructed
    assert query_text(form, "Q") == query_text(form, "Q", "") == bare
    assert document_text(form, "D") == document


@pytest.mark.parametrize("family", FORMATS)
def test_without_an_instruction_nothing_of_its_form_is_left(family: str) -> None:
    form = named_format(family)
    assert "nstruct" not in query_text(form, "Q") and "user" not in query_text(form, "Q")
    assert query_texts(form, [Query("1", "Q", instruction="I")], False) == [query_text(form, "Q")]
    assert query_texts(form, [Query("1", "Q", instruction="I")], True) == [query_text(form, "Q", "I")]


@pytest.mark.parametrize("family", FORMATS)
def test_braces_in_texts_are_texts(family: str) -> None:
    form = named_format(family)
    odd = "{query} {instruction} {text} {0} {"
    assert query_text(form, "Q", odd).count(odd) == 1 and query_text(form, odd, "I").endswith((odd, odd + "</s>"))
    assert document_text(form, odd).endswith(odd)


def test_poolings_of_the_benchmark() -> None:
    expected = {"e5-base": "mean", "e5-mistral-7b": "last", "contriever": "mean", "bge-m3": "cls", "gte-base": "cls"}
    assert {name: find_format(name).pooling for name in expected} == expected
    assert [name for name, form in FORMATS.items() if not form.normalize] == ["contriever", "gtr"]


def test_a_family_that_is_misspelt_is_refused() -> None:
    with pytest.raises(ConfigError, match="did you mean minilm"):
        named_format("minilmm")


def test_an_embedder_has_the_format_of_its_model_wherever_that_is() -> None:
    """A model behind an address is known by its name, not by the end of the address."""
    served = OpenAiEmbedder(model="intfloat/e5-base-v2", base_url="http://127.0.0.1:1/v1")
    loaded = SentenceTransformersEmbedder(path="intfloat/e5-base-v2")
    assert embedder_format(served) == embedder_format(loaded) == FORMATS["e5"] != FORMATS["minilm"]
    assert embedder_format(PackagedEmbedder()) == FORMATS["minilm"]
    assert embedder_format(served, "e5-toolret") == FORMATS["e5-toolret"] != FORMATS["e5"]


def test_settings_refuse_a_family_that_is_misspelt() -> None:
    with pytest.raises(ValueError, match="did you mean e5-toolret"):
        IndexConfig(family="e5-toolrett")
