"""Strict configuration: right settings load, wrong ones are refused with their place and the nearest right name."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

from squadron.core.config import Config, fingerprint, flatten, load_config, mask_secrets, to_yaml
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


def test_flatten_joins_nested_keys() -> None:
    assert flatten({"a": {"b": 1}, "c": [2], "d": {}}) == {"a.b": 1, "c": [2], "d": {}}


def test_settings_with_mappings_are_keys_too() -> None:
    """Workers keep what they opened by its settings."""

    class Server(Config):
        extra: dict[str, object] = {}

    one, other = Server(extra={"top_k": [1, 2]}), Server(extra={"top_k": [1, 3]})
    assert hash(one) == hash(Server(extra={"top_k": [1, 2]})) and len({one, other, Server()}) == 3
