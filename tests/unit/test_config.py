"""Strict configuration: right settings load, wrong ones are refused with their place and the nearest right name."""

from __future__ import annotations

import enum
import math
import re
from datetime import date
from pathlib import Path, PurePath
from typing import Annotated

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

from squadron.core.config import Config, fingerprint, flatten, load_config, mask_secrets, read_config, to_yaml
from squadron.core.errors import ConfigError


class Inner(Config):
    learning_rate: float = Field(1e-3, gt=0)
    api_key: str = ""


class Outer(Config):
    seed: int = 0
    training: Inner = Inner()
    second: Inner | None = None


def _write(folder: Path, text: str) -> Path:
    path = folder / "config.yaml"
    path.write_text(text)
    return path


def test_file_then_command_line_decide(tmp_path: Path) -> None:
    path = _write(tmp_path, "seed: 3\ntraining:\n  learning_rate: 0.5\n")
    config = load_config(Outer, path, ["training.learning_rate=0.25"])
    assert (config.seed, config.training.learning_rate) == (3, 0.25)


def test_misspelt_key_names_path_line_and_nearest(tmp_path: Path) -> None:
    path = _write(tmp_path, "seed: 3\ntraining:\n  learning_rat: 0.5\n")
    with pytest.raises(ConfigError) as error:
        load_config(Outer, path)
    text = str(error.value)
    assert "training.learning_rat" in text and "line 3" in text and "did you mean learning_rate?" in text


def test_misspelt_key_inside_an_optional_section() -> None:
    with pytest.raises(ConfigError, match="did you mean learning_rate"):
        load_config(Outer, None, ["second.learningrate=1"])


def test_wrong_type_and_wrong_range_are_both_reported(tmp_path: Path) -> None:
    path = _write(tmp_path, "seed: many\ntraining: {learning_rate: -1}\n")
    with pytest.raises(ConfigError) as error:
        load_config(Outer, path)
    text = str(error.value)
    assert "2 settings are wrong" in text and "'many'" in text and "-1" in text and "line 1" in text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("seed: 1\nseed: 2\n", "seed is set twice"),
        ("- 1\n", "expected settings"),
        ("seed: [1\n", "not valid YAML"),
    ],
)
def test_malformed_files_are_refused(tmp_path: Path, text: str, expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        load_config(Outer, _write(tmp_path, text))


def test_missing_file_names_a_near_one(tmp_path: Path) -> None:
    _write(tmp_path, "")
    with pytest.raises(ConfigError, match=r"did you mean config\.yaml"):
        load_config(Outer, tmp_path / "confg.yaml")


@pytest.mark.parametrize("word", ["seed", "=3", "seed.deeper=1"])
def test_malformed_words_are_refused(tmp_path: Path, word: str) -> None:
    with pytest.raises(ConfigError):
        load_config(Outer, _write(tmp_path, "seed: 1\n"), [word])


@given(seed=st.integers(-(2**40), 2**40), rate=st.floats(1e-12, 1e12))
def test_resolved_yaml_reads_back_equal(tmp_path_factory: pytest.TempPathFactory, seed: int, rate: float) -> None:
    config = Outer(seed=seed, training=Inner(learning_rate=rate))
    path = _write(tmp_path_factory.mktemp("yaml"), to_yaml(config))
    assert load_config(Outer, path) == config
    assert fingerprint(load_config(Outer, path)) == fingerprint(config)


def test_fingerprint_sees_every_setting() -> None:
    assert fingerprint(Outer()) != fingerprint(Outer(training=Inner(learning_rate=2e-3)))


def test_secrets_never_reach_a_dump() -> None:
    dumped = to_yaml(Outer(training=Inner(api_key="sk-1234")))
    assert "sk-1234" not in dumped and "api_key: '***'" in dumped
    named = {"api_key_env": "OPENAI_API_KEY"}
    assert mask_secrets(named) == named and mask_secrets({"api_key_env": "sk-1234"}) == {"api_key_env": "***"}
    assert mask_secrets({"max_tokens": 5, "token": "x"}) == {"max_tokens": 5, "token": "***"}


def test_a_masked_secret_is_not_taken_for_the_secret(tmp_path: Path) -> None:
    path = _write(tmp_path, to_yaml(Outer(training=Inner(api_key="sk-1234"))))
    with pytest.raises(ConfigError, match=r"training\.api_key is a secret that was masked\n.*line 4"):
        load_config(Outer, path)
    assert load_config(Outer, path, ["training.api_key=sk-1234"]).training.api_key == "sk-1234"


def test_flatten_joins_nested_keys() -> None:
    assert flatten({"a": {"b": 1}, "c": [2], "d": {}}) == {"a.b": 1, "c": [2], "d": {}}


def test_settings_with_mappings_are_keys_too() -> None:
    """Workers keep what they opened by its settings."""

    class Server(Config):
        extra: dict[str, object] = {}

    one, other = Server(extra={"top_k": [1, 2]}), Server(extra={"top_k": [1, 3]})
    assert hash(one) == hash(Server(extra={"top_k": [1, 2]})) and len({one, other, Server()}) == 3


class Kinds(Config):
    rate: float = 1.0
    count: int = 1
    flag: bool = False
    text: str = ""
    maybe: str | None = None
    free: Annotated[float, Field(allow_inf_nan=True)] = 0.0
    places: tuple[Inner, ...] = (Inner(), Inner(learning_rate=0.5))
    betas: tuple[float, float] = (0.9, 0.99)
    extra: dict[str, object] = {}


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("rate: 010", "in more than one way"),
        ("rate: 1:30", "in more than one way"),
        ("rate: 1_000", "in more than one way"),
        ("count: 0x10", "in more than one way"),
        ("rate: .inf", "not a finite number"),
        ("rate: nan", "a valid number"),
        ("rate: 1e999", "too large"),
        ("rate: 1e-999", "would be 0"),
        ("rate: true", "a valid number, not 'true'"),
        ("count: 1.5", "valid integer"),
        ("flag: on", "write true"),
        ("flag: 1", "true or false, not '1'"),
        ("extra: {a: {b: no}}", "write false"),
        ("extra: {a: [010]}", "in more than one way"),
        ("maybe: None", "written null"),
        ("maybe: ~", "none or home"),
        ("text: null", "valid string"),
    ],
)
def test_words_that_could_be_two_things_are_refused_by_line(tmp_path: Path, value: str, said: str) -> None:
    with pytest.raises(ConfigError) as error:
        load_config(Kinds, _write(tmp_path, f"# one\n{value}\n"))
    key = value.partition(":")[0]
    assert said in str(error.value) and f"  {key}" in str(error.value) and "line 2" in str(error.value)


def test_words_are_read_by_the_type_of_their_setting(tmp_path: Path) -> None:
    text = (
        "rate: 1e-4\ncount: 1e3\nflag: True\ntext: 010\nmaybe: no\nfree: -.inf\n"
        "extra: {on: 1e-4, 1: '1e-4', date: 2024-01-01, none: ~}"
    )
    read = load_config(Kinds, _write(tmp_path, text))
    assert (read.rate, read.count, read.flag, read.text, read.maybe) == (1e-4, 1000, True, "010", "no")
    assert read.free == float("-inf")
    assert read.extra == {"on": 1e-4, "1": "1e-4", "date": "2024-01-01", "none": None}


@pytest.mark.parametrize(
    ("text", "said", "line"),
    [
        ("seed: 1\ntraining:\n  api_key: 1\n  api_key: 2\n", "training.api_key is set twice", "3 and 4"),
        ("a: [{b: 1,\n b: 2}]", "a.0.b is set twice", "1 and 2"),
        ("1: 2\n'1': 3", "1 is set twice", "1 and 2"),
        ("a: 1\n<<: {b: 1}\n<<: {c: 1}", "<< is set twice", "2 and 3"),
        ("a: 1\n<<: 3", "merges what is no mapping", "2"),
        ("seed: 1\na: &a\n  b: *a\n", "a.b holds itself", "2"),
        ("seed: 1\na: &a {<<: *a}", "a holds itself", "2"),
        ("a: *b", "undefined alias", "1"),
        ("seed: 1\nx: !!python/name:os.system", "tag", "2"),
        ("seed: 1\nx: !!binary aGk=", "!!binary", "2"),
        ("seed: 1\n---\nseed: 2\n", "another document", "2"),
        ("seed: 1\n\tx: 2", "\\t", "2"),
        ("seed: 1\nx: \x07", "U+0007", "2"),
        ("seed: 1\nx: \"\\ud83d\"", "half of a character", "2"),
        ("seed: 1\nx: \"\\UFFFFFFFF\"", "not valid YAML", "2"),
        ("seed: 1\n? [a]\n: 2", "no text", "2"),
        ("seed: 1\n'': 2", "is empty", "2"),
        ("x: " + "[" * 100_000, "deep", "1"),
        ("a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]\n" + "".join(
            f"{new}: &{new} [{', '.join(f'*{old}' for _ in range(10))}]\n"
            for old, new in zip("abcdefgh", "bcdefghi", strict=True)), "values, aliases counted", "1"),
    ],
)  # fmt: skip
def test_files_that_say_nothing_of_their_own_are_refused_by_line(
    tmp_path: Path, text: str, said: str, line: str
) -> None:
    with pytest.raises(ConfigError) as error:
        load_config(Outer, _write(tmp_path, text))
    assert said in str(error.value)
    assert re.search(rf"config\.yaml, lines? {line}\n", f"{error.value}\n") is not None


def test_other_encodings_are_refused_and_a_mark_of_order_is_none(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_bytes("\ufeffseed: 3\r\n".encode())
    assert load_config(Outer, path).seed == 3
    for content, line in (("seed: 3\n".encode("utf-16"), 1), ("seed: 3\n# ä\n".encode("latin-1"), 2)):
        path.write_bytes(content)
        with pytest.raises(ConfigError, match=rf"not UTF-8\n.*config\.yaml, line {line}\n"):
            load_config(Outer, path)
    with pytest.raises(ConfigError, match="a folder is no configuration file"):
        load_config(Outer, tmp_path)


def test_pairs_of_escapes_as_json_writes_them_are_one_character(tmp_path: Path) -> None:
    assert load_config(Kinds, _write(tmp_path, '{"text": "\\ud83d\\ude00"}')).text == "😀"


def test_aliases_and_merges_that_end_are_read(tmp_path: Path) -> None:
    text = "places: [&one {learning_rate: 0.1, api_key: x}, {<<: *one, learning_rate: 0.2}, *one]"
    read = load_config(Kinds, _write(tmp_path, text))
    assert [(one.learning_rate, one.api_key) for one in read.places] == [(0.1, "x"), (0.2, "x"), (0.1, "x")]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["seed=1", "seed=2"], "seed is set twice"),
        (["training={learning_rate: 1}", "training.learning_rate=2"], "one setting and a part of it"),
        (["training.learning_rate=2", "training={learning_rate: 1}"], "one setting and a part of it"),
        (["training={learning_rate: 1} # fast"], "something follows its end"),
        (["training={learning_rate: 1"], "not valid YAML"),
        (["training={learning_rate: 1, learning_rate: 2}"], "set twice"),
        (["seed=\udcff"], "no text in UTF-8"),
        (["training.learning_rat=1"], "did you mean learning_rate"),
        (["seed.a=1"], r"seed: .*valid integer.*\[command line: seed\.a=1\]"),
    ],
)
def test_words_that_contradict_each_other_are_refused(words: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        load_config(Outer, None, words)


def test_items_of_lists_are_set_by_their_index(tmp_path: Path) -> None:
    path = _write(tmp_path, "places: [{learning_rate: 0.1}]")
    assert load_config(Kinds, path, ["places.0.api_key=a # b"]).places == (Inner(learning_rate=0.1, api_key="a # b"),)
    read = load_config(Kinds, None, ["betas.1=0.5", "places.1.api_key=x"])
    assert read.betas == (0.9, 0.5) and read.places == (Inner(), Inner(learning_rate=0.5, api_key="x"))
    for word in ("places.2.api_key=x", "places.00.api_key=x", "places.a=x", "betas.2=1"):
        with pytest.raises(ConfigError, match="there is no item"):
            load_config(Kinds, None, [word])
    with pytest.raises(ConfigError, match="one setting and a part of it"):
        load_config(Kinds, None, ["places=[]", "places.0.api_key=x"])


def test_problems_inside_a_union_are_named_by_their_setting(tmp_path: Path) -> None:
    from squadron.methods.crowdselect.config import CrowdSelectConfig

    text = "reward:\n  provider: judge\n  model:\n    provider: openai\n    nam: x\n    model: y\n"
    with pytest.raises(ConfigError) as error:
        load_config(CrowdSelectConfig, _write(tmp_path, text))
    said = str(error.value)
    assert re.search(r"  reward\.model\.nam: there is no such setting; did you mean name\?.*line 5\]", said)
    assert re.search(r"  reward\.model\.name: Field required  \[.*line 3\]", said)


class Mode(enum.Enum):
    FAST = "fast"
    SLOW = 2


class Others(Config):
    either: int | str = 0
    truth: bool | str = False
    place: PurePath = PurePath("a")
    day: date = date(2024, 1, 1)
    mode: Mode = Mode.FAST
    sizes: dict[int, float] = {}
    places: list[Inner | str] = []
    chosen: set[str] = set()
    limit: float = math.inf


def test_settings_of_other_types_are_read_by_these(tmp_path: Path) -> None:
    text = (
        "either: 3\ntruth: 1\nplace: 010\nday: 2024-02-03\nmode: 2\nsizes: {1: 1e-3}\n"
        "places: [{api_key: no}, on]\nchosen: [no]"
    )
    for read in (
        load_config(Others, _write(tmp_path, text)),
        load_config(Others, None, ["either=3", "truth=1", "place=010", "day=2024-02-03", "mode=2", "sizes={1: 1e-3}",
                                   "places=[{api_key: no}, on]", "chosen=[no]"]),
    ):  # fmt: skip
        assert (read.either, read.truth, read.place, read.day) == (3, "1", PurePath("010"), date(2024, 2, 3))
        assert (read.mode, read.sizes, read.places, read.chosen) == (
            Mode.SLOW, {1: 1e-3}, [Inner(api_key="no"), "on"], {"no"}
        )  # fmt: skip
        assert read.limit == math.inf
        assert read_config(Others, to_yaml(read).encode(), "c.yaml") == read.model_copy(
            update={"places": [Inner(api_key="***"), "on"]}
        )
    with pytest.raises(ConfigError, match=r"either: 010 is read in more than one way"):
        load_config(Others, None, ["either=010"])


def test_a_text_that_looks_like_a_mapping_in_a_file_is_told_to_be_quoted(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"text: should be a text; .* stands in quotes  \[.*line 1\]"):
        load_config(Kinds, _write(tmp_path, "text: {prompt}"))


def test_words_that_lie_very_deep_are_refused() -> None:
    with pytest.raises(ConfigError, match="parts deep"):
        load_config(Kinds, None, ["extra." * 5000 + "a=1"])
