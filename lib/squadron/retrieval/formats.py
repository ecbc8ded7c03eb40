"""How each family of embedding models wants queries, instructions and documents written.

One table. `query` is what a query is without an instruction: nothing of an instruction's form is left in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import AfterValidator

from squadron.core.errors import ConfigError, suggest
from squadron.llm.embed import AnyEmbedder, OpenAiEmbedder, PackagedEmbedder
from squadron.retrieval.documents import Query


@dataclass(frozen=True)
class Format:
    """Templates of a family, and how its models make one vector of a text's tokens: `own` by layers of their own."""

    instructed: str = "Instruct: {instruction}\nQuery: {query}"
    query: str = "{query}"
    document: str = "{text}"
    pooling: Literal["mean", "cls", "last", "own"] = "mean"
    normalize: bool = True


FORMATS: dict[str, Format] = {
    "plain": Format(instructed="{instruction} {query}"),
    "minilm": Format(),
    "contriever": Format(normalize=False),
    "gtr": Format(normalize=False),
    "bge": Format(pooling="cls"),
    "gte": Format(pooling="cls"),
    "gte-qwen": Format(pooling="last"),
    "qwen3-embedding": Format(instructed="Instruct: {instruction}\nQuery:{query}", pooling="last"),
    "e5": Format("Instruct: {instruction}\nquery: {query}", "query: {query}", "passage: {text}"),
    "e5-toolret": Format("Instruct: {instruction}\nquery: {query}", "query: {query}"),
    "e5-instruct": Format(),
    "e5-mistral": Format(pooling="last"),
    "nv-embed": Format("Instruct: {instruction}\nQuery: {query}</s>", "{query}</s>", pooling="own"),
    "gritlm": Format("<|user|>\n{instruction}\n<|embed|>\n{query}", "<|embed|>\n{query}", "<|embed|>\n{text}"),
}
"""`plain` is for what reads words alone, such as BM25. `e5-toolret` is E5 as the tool retrieval benchmark runs it:
documents without their prefix. Poolings and normalisation as arXiv 2503.01763's code has them."""

_FAMILIES = (
    ("minilm", "minilm"),
    ("contriever", "contriever"),
    ("gtr-", "gtr"),
    ("bge", "bge"),
    ("gte-qwen", "gte-qwen"),
    ("gte", "gte"),
    ("qwen3-embedding", "qwen3-embedding"),
    ("e5-mistral", "e5-mistral"),
    ("e5", "e5"),
    ("nv-embed", "nv-embed"),
    ("gritlm", "gritlm"),
)
"""What a model's name holds, and its family; the first that fits."""


def _known(family: str) -> str:
    if family not in FORMATS:
        raise ValueError(f"no family of models is called {family!r}; {suggest(family, FORMATS)}")
    return family


Family = Annotated[str, AfterValidator(_known)]
"""In settings: the name of a family."""


def embedder_format(embedder: AnyEmbedder, family: str | None = None) -> Format:
    """The format of a family, or of the one that the embedder's model is of by its name."""
    if family is not None:
        return named_format(family)
    if isinstance(embedder, PackagedEmbedder):
        return FORMATS["minilm"]
    return find_format(embedder.model if isinstance(embedder, OpenAiEmbedder) else str(embedder.path))


def find_format(name: str) -> Format:
    """The format of a family by its own name or by that of one of its models, such as `intfloat/e5-base-v2`; of a model
    that no family knows, that of most: `Instruct:`, and bare queries and documents."""
    known = name.lower()
    if known in FORMATS:
        return FORMATS[known]
    last = known.rstrip("/").rpartition("/")[2]
    family = next((family for part, family in _FAMILIES if part in last), None)
    if family == "e5" and "instruct" in last:
        family = "e5-instruct"
    return Format() if family is None else FORMATS[family]


def named_format(family: str) -> Format:
    """The format of a family. Raises ConfigError for one that is not in the table."""
    if family not in FORMATS:
        raise ConfigError(f"no family of models is called {family!r}", fix=suggest(family, FORMATS))
    return FORMATS[family]


def query_text(form: Format, query: str, instruction: str | None = None) -> str:
    """The query as models of this format read it; without an instruction, or with an empty one, truly without."""
    template = form.instructed if instruction else form.query
    return template.format(instruction=instruction, query=query)


def query_texts(form: Format, queries: Sequence[Query], with_instruction: bool) -> list[str]:
    """The texts of queries, with the instruction of each or without."""
    return [query_text(form, query.text, query.instruction if with_instruction else None) for query in queries]


def document_text(form: Format, text: str) -> str:
    """The document as models of this format read it."""
    return form.document.format(text=text)
