"""Whatever stands in a file or a word is read as it was written, or refused by its key and its line.

`SQUADRON_FUZZ=20000` tries as many of each kind.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from decimal import Decimal
from typing import Annotated, Any, Literal

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from pydantic import Field

from squadron.core import registry
from squadron.core.config import Config, flatten, from_values, load_config, mask_secrets, read_config, to_yaml
from squadron.core.errors import ConfigError
from squadron.core.inputs import InputPath

JOBS = list(registry.list_jobs())
CONFIGS = [(job, name) for job in JOBS for name in registry.list_configs(job)]
fuzzed = settings(max_examples=int(os.environ.get("SQUADRON_FUZZ", "200")), derandomize=True, deadline=None)

PIECES = [
    "#", " #", ": ", ":", "{", "}", "[", "]", ",", "&", "*", "!", "!!int ", "|", ">", "%", "@", "`", "'", '"', "\\",
    "-", "- ", "? ", "<<", "=", "~", "\n", "\n\n", "\r", "\t", " ", "\x85", "\u2028", "\ufeff", "\xa0", "\x00",
    "\x7f", "\x1b", "---", "...", "a", "ä", "漢", "😀", "0", "1", "7", "9", ".", "e", "E", "+", "_", "x",
]  # fmt: skip
WORDS = [
    "", "no", "No", "NO", "yes", "on", "off", "y", "n", "true", "True", "false", "null", "Null", "None", "~", "~/a",
    "2024", "0123", "010", "12:30", "1:30", "1e-4", "1e4", "1_000", "0x1F", "0o17", "0b1", ".inf", "-.inf", ".nan",
    "nan", "inf", "Infinity", "1e999", "1e-999", "2024-01-01", "2024-01-01 12:00:00", "+1", "-0", "1.", ".5", "5.0",
    "9" * 400, "=", "<<", "Q {prompt} ### A", "{prompt}", "Question: {prompt}", "[a, b]", "{a: 1}", "[", "'a'",
    '"a"', " a ", "a\n", "\na", "a \n b",
]  # fmt: skip
texts = st.one_of(
    st.sampled_from(WORDS), st.lists(st.sampled_from(PIECES), max_size=6).map("".join), st.text(max_size=8)
)
HALF = re.compile("[\ud800-\udfff]")


class Hf(Config):
    provider: Literal["hf"] = "hf"
    value: str = ""


class Api(Config):
    provider: Literal["api"] = "api"
    value: float = 1.0
    extra: dict[str, Any] = {}


class Sizes(Config):
    rate: float = 1.0
    count: int = 1
    ratio: float | None = None
    free: Annotated[float, Field(allow_inf_nan=True)] = 0.0
    flag: bool = False
    level: Literal[0, 1, 2] | None = None
    betas: tuple[float, float] = (0.9, 0.99)


class Everything(Config):
    """A setting of each kind."""

    text: str = ""
    maybe: str | None = "set"
    path: InputPath | None = None
    names: tuple[str, ...] = ()
    modules: str | tuple[str, ...] = "all"
    table: dict[str, str] = {}
    anything: dict[str, Any] = {}
    rows: tuple[tuple[str, tuple[str, ...]], ...] = ()
    one: Annotated[Hf | Api, Field(discriminator="provider")] = Hf()
    several: tuple[Annotated[Hf | Api, Field(discriminator="provider")], ...] = ()
    sizes: Sizes = Sizes()
    again: Sizes | None = None


scalars = st.one_of(texts, st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.booleans(), st.none())
trees = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts.filter(bool), inner, max_size=3),
    max_leaves=8,
)
floats = st.floats(allow_nan=False, allow_infinity=False)
sizes = st.builds(
    dict, rate=floats, count=st.integers(), ratio=st.none() | floats, flag=st.booleans(),
    level=st.sampled_from([None, 0, 1, 2]), betas=st.tuples(floats, floats).map(list),
)  # fmt: skip
models = st.one_of(
    st.builds(dict, provider=st.just("hf"), value=texts),
    st.builds(
        dict, provider=st.just("api"), value=floats, extra=st.dictionaries(texts.filter(bool), trees, max_size=3)
    ),
)
named = st.lists(texts, max_size=3)
everything = st.builds(
    dict, text=texts, maybe=st.none() | texts, path=st.none() | texts.filter(lambda text: bool(text.strip())),
    names=named, modules=texts | named, table=st.dictionaries(texts.filter(bool), texts, max_size=3),
    anything=st.dictionaries(texts.filter(bool), trees, max_size=3),
    rows=st.lists(st.tuples(texts, named).map(list), max_size=2), one=models, several=st.lists(models, max_size=2),
    sizes=sizes, again=st.none() | sizes,
)  # fmt: skip


def _made(values: dict[str, Any]) -> Everything:
    try:
        return from_values(Everything, values, {})
    except ConfigError:
        assume(False)
        raise


@fuzzed
@given(everything)
def test_what_is_written_is_read_back_equal(values: dict[str, Any]) -> None:
    config = _made(values)
    written = config.model_dump(mode="json")
    assume(mask_secrets(written) == written)
    assert read_config(Everything, to_yaml(config).encode(), "config.yaml") == config
    assert from_values(Everything, json.loads(json.dumps(written)), {}) == config


def _alike(value: Any) -> st.SearchStrategy[Any]:
    """Values of the same type."""
    kinds = {bool: st.booleans(), int: st.integers(), float: floats, str: texts}
    return kinds[type(value)]


def _attempt(make: Callable[[], Config], key: str) -> Config | None:
    """What is read; None for what is refused by the key, or by settings that do not agree."""
    try:
        return make()
    except ConfigError as error:
        named = ("no text in UTF-8", f"  {key}: ", f"  {key.rpartition('.')[0] or 'settings'}: ", "  settings: ")
        assert any(said in str(error) for said in named), error
        return None


@fuzzed
@given(st.sampled_from(CONFIGS), st.data())
def test_settings_of_every_method_are_read_alike_from_files_and_words(
    named: tuple[str, str], data: st.DataObject
) -> None:
    job, name = named
    kind, path = registry.load_job(job).config_type, registry.find_config(job, name)
    base = load_config(kind, path).model_dump(mode="json")
    leaves = {key: value for key, value in flatten(base).items() if isinstance(value, bool | int | float | str)}
    key = data.draw(st.sampled_from(sorted(leaves)))
    value = data.draw(_alike(leaves[key]))
    config = _attempt(lambda: from_values(kind, base, {key: value}), key)
    if ".settings." not in key and not (isinstance(value, str) and value.lower() in ("null", "none")):
        word = value if isinstance(value, str) else json.dumps(value)
        assert _attempt(lambda: load_config(kind, path, [f"{key}={word}"]), key) == config
    if config is not None and mask_secrets(written := config.model_dump(mode="json")) == written:
        assert read_config(kind, to_yaml(config).encode(), "config.yaml") == config


@fuzzed
@given(texts)
@example('"quoted"')
@example("null")
def test_a_word_for_a_text_is_that_text(text: str) -> None:
    if HALF.search(text):
        with pytest.raises(ConfigError, match="no text in UTF-8"):
            load_config(Everything, None, [f"text={text}"])
        return
    words = [f"text={text}", f"one.value={text}", f"table.a={text}"]
    config = load_config(Everything, None, words)
    assert (config.text, config.one.value, config.table) == (text, text, {"a": text})
    if text == "None":
        with pytest.raises(ConfigError, match=r"maybe: None is written null.*\[command line: maybe=None\]"):
            load_config(Everything, None, ["maybe=None"])
        return
    expected = None if text in ("null", "Null", "NULL") else text
    assert load_config(Everything, None, [f"maybe={text}"]).maybe == expected
    if text.strip() and "\0" not in text:
        local = text.removeprefix("file://") if text.startswith("file:///") else text
        assert load_config(Everything, None, [f"path={text}"]).path == (expected and os.path.expanduser(local))


@fuzzed
@given(texts | floats.map(repr) | st.integers().map(str))
def test_a_word_for_a_number_is_that_number_or_refused(text: str) -> None:
    for key, kind in (("rate", float), ("count", int), ("ratio", float), ("flag", bool), ("level", int)):
        try:
            found = getattr(load_config(Everything, None, [f"sizes.{key}={text}"]).sizes, key)
        except ConfigError as error:
            assert "no text in UTF-8" in str(error) or f"sizes.{key}: " in str(error)
            continue
        if found is None:
            assert key in ("ratio", "level") and text in ("null", "Null", "NULL", "~")
        elif kind is bool:
            assert text.lower() == str(found).lower() and isinstance(found, bool)
        else:
            assert re.fullmatch(r"[-+]?([1-9]\d*|0|\d*\.\d*|\d+(?=e))(\.\d*)?([eE][-+]?\d+)?", text, re.A)
            assert type(found) is kind and abs(found) != float("inf")
            assert found == (float(text) if kind is float else Decimal(text))


@fuzzed
@given(st.data())
def test_a_file_of_any_signs_is_read_or_refused_with_its_line(data: st.DataObject) -> None:
    keys = [
        "text",
        "maybe",
        "names",
        "anything",
        "several",
        "sizes",
        "one",
        "one.value",
        "1",
        "on",
        "<<",
        "a b",
        "null",
        "",
    ]
    lines = data.draw(st.lists(st.tuples(st.sampled_from(["", "  ", "- "]), st.sampled_from(keys), texts), max_size=4))
    content = "\n".join(f"{indent}{key}: {text}" for indent, key, text in lines).encode("utf-8", "surrogatepass")
    try:
        read_config(Everything, content, "c.yaml")
    except ConfigError as error:
        assert "c.yaml, line" in str(error) or "expected settings" in str(error)


@fuzzed
@given(st.sampled_from(CONFIGS), st.data())
def test_a_damaged_configuration_is_read_or_refused(named: tuple[str, str], data: st.DataObject) -> None:
    job, name = named
    kind = registry.load_job(job).config_type
    path = registry.find_config(job, name)
    assert path is not None
    text = path.read_text()
    at, length = data.draw(st.integers(0, len(text))), data.draw(st.integers(0, 8))
    damaged = text[:at] + data.draw(texts) + text[at + length :]
    try:
        read_config(kind, damaged.encode("utf-8", "surrogatepass"), "c.yaml")
    except ConfigError as error:
        assert "c.yaml" in str(error)
