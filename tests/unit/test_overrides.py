"""A setting that is overridden changes itself alone: the rest of its part stays as the default of the field has it."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field

from squadron.core import registry
from squadron.core.config import Config, flatten, from_values, load_config, to_yaml
from squadron.core.errors import ConfigError
from squadron.core.plan import differing


class Sampling(Config):
    max_tokens: int = 512
    temperature: float = 1.0


class Ask(Config):
    sampling: Sampling = Sampling(temperature=0.7)
    cap_usd: float | None = None


class Loud(Config):
    kind: Literal["loud"] = "loud"
    volume: int = 1
    sampling: Sampling = Sampling(max_tokens=9)


class Quiet(Config):
    kind: Literal["quiet"] = "quiet"
    sampling: Sampling = Sampling(max_tokens=7)
    note: str = "hush"


class Whole(Config):
    ask: Ask = Ask(sampling=Sampling(max_tokens=48))
    voice: Annotated[Loud | Quiet, Field(discriminator="kind")] = Loud(volume=5)
    second: Sampling | None = None
    several: tuple[Ask, ...] = ()


JOBS = list(registry.list_jobs())
PRESETS = [(job, name) for job in JOBS for name in ("smoke", "paper") if name in registry.list_configs(job)]


def _other(value: Any) -> Any:
    """A value of the same kind, next to this one."""
    match value:
        case bool():
            return not value
        case int():
            return value + 1
        case float():
            return value * 0.75 if value else 0.25
        case str():
            return f"{value}x"
    return value


def _leaves(config: Config) -> dict[str, Any]:
    return flatten(config.model_dump(mode="json"))


@pytest.mark.parametrize("job", JOBS)
def test_overriding_a_leaf_by_its_own_value_changes_nothing(job: str) -> None:
    kind = registry.load_job(job).config_type
    config = kind()
    for key, value in _leaves(config).items():
        word = value if isinstance(value, str) else json.dumps(value)
        assert load_config(kind, None, [f"{key}={word}"]) == config, key


@pytest.mark.parametrize("job", JOBS)
def test_overriding_a_leaf_changes_that_leaf_alone(job: str) -> None:
    kind = registry.load_job(job).config_type
    leaves = _leaves(kind())
    tried = 0
    for key, value in leaves.items():
        try:
            config = from_values(kind, {}, {key: _other(value)})
        except ConfigError:
            continue  # a name of which there are few, or a size that goes with another
        after = _leaves(config)
        assert {one for one in leaves | after if leaves.get(one) != after.get(one)} <= {key}, key
        tried += after != leaves
    assert tried > sum(value not in (None, []) for value in leaves.values()) / 2


@pytest.mark.parametrize(("job", "name"), PRESETS)
def test_a_sweep_changes_a_leaf_of_a_preset_alone(job: str, name: str) -> None:
    kind = registry.load_job(job).config_type
    config = load_config(kind, registry.find_config(job, name))
    base, leaves = config.model_dump(mode="json"), _leaves(config)
    for key, value in leaves.items():
        assert from_values(kind, base, {key: value}) == config
        assert from_values(kind, differing(config), {key: value}) == config, key


def test_the_rest_of_a_nested_default_stays() -> None:
    config = load_config(Whole, None, ["ask.cap_usd=5"])
    assert config == Whole(ask=Ask(sampling=Sampling(max_tokens=48), cap_usd=5))
    assert load_config(Whole, None, ["ask.sampling.temperature=0.1"]).ask.sampling == Sampling(
        max_tokens=48, temperature=0.1
    )


def test_the_inner_class_does_not_come_in_between() -> None:
    """`Ask` alone has temperature 0.7; the field's own default has 1."""
    assert load_config(Whole, None, ["ask.cap_usd=5"]).ask.sampling.temperature == 1.0
    assert load_config(Ask, None, ["sampling.max_tokens=3"]).sampling.temperature == 0.7


def test_another_kind_takes_its_own_defaults() -> None:
    assert load_config(Whole, None, ["voice.kind=quiet"]).voice == Quiet()
    changed = load_config(Whole, None, ["voice.kind=quiet", "voice.sampling.temperature=0.5"]).voice
    assert changed == Quiet(sampling=Sampling(max_tokens=7, temperature=0.5))


def test_the_same_kind_said_or_unsaid_stays() -> None:
    for words in (["voice.sampling.max_tokens=1"], ["voice.kind=loud", "voice.sampling.max_tokens=1"]):
        assert load_config(Whole, None, words).voice == Loud(volume=5, sampling=Sampling(max_tokens=1))


def test_without_a_default_the_class_decides() -> None:
    assert load_config(Whole, None, ["second.max_tokens=3"]).second == Sampling(max_tokens=3)
    assert load_config(Whole, None, ["several=[{cap_usd: 1}]"]).several == (Ask(cap_usd=1),)


def test_what_differs_is_told_against_the_fields_own_default() -> None:
    config = Whole(ask=Ask(), voice=Loud())
    assert differing(config) == {"ask": {"sampling": {"max_tokens": 512, "temperature": 0.7}}, "voice": {"volume": 1}}
    assert from_values(Whole, differing(config), {}) == config
    other = Whole(voice=Quiet(note="still"))
    assert from_values(Whole, differing(other), {}) == other


def test_what_is_written_is_read_back(tmp_path: Any) -> None:
    path = tmp_path / "whole.yaml"
    config = Whole(ask=Ask(), voice=Quiet(note="still"), second=Sampling())
    path.write_text(to_yaml(config))
    assert load_config(Whole, path) == config
