"""Strict configuration: frozen pydantic models from YAML and `key.path=value` words.

A misspelt key or a wrong type is refused before anything starts, with its path, its line in the file, and the nearest
right name.
"""

from __future__ import annotations

import copy
import functools
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic.fields import FieldInfo

from squadron.core.assignments import assign, check_overlap, prefixes, split_words
from squadron.core.errors import ConfigError, suggest
from squadron.core.inputs import InputPath
from squadron.core.masking import MASK, mask_secrets, masked_keys, names_secret, remember_secrets
from squadron.core.typed_values import Walk
from squadron.core.yaml_text import read_mapping, write_yaml

PartT = TypeVar("PartT", bound="Config")


class Config(BaseModel):
    """Base of every setting, specification and record: frozen, and a stranger to unknown keys.

    A field decides the result of the stages that read it, and a change of it runs them again, unless it is declared as
    `operational`. A field of type `InputPath` decides by the content of what it names.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    @model_validator(mode="before")
    @classmethod
    def _keep_nested_defaults(cls, values: Any) -> Any:
        """Settings of a part change these alone: the rest of it stays as the default of its field has it."""
        nested = _nested_defaults(cls)
        if not nested or not isinstance(values, Mapping):
            return values
        return {key: _lay(nested[key], value) if key in nested else value for key, value in values.items()}

    def __hash__(self) -> int:
        """Of the values, whether or not they are mappings: settings are keys of caches on workers."""
        return hash((type(self), self.model_dump_json()))

    def only(self, base: type[PartT]) -> PartT:
        """The settings that a base class has, alone: for a stage that reads no others, and so depends on no others."""
        return base.model_validate({name: getattr(self, name) for name in base.model_fields})


def operational(default: Any = ..., **constraints: Any) -> Any:
    """A field that decides nothing of a result, only how fast, how safely or how nicely it is reached: time-outs, batch
    sizes of inference, intervals of checkpoints, limits of rates and spending. A change of it runs nothing again.

    Takes what `pydantic.Field` takes.
    """
    return Field(default, json_schema_extra={"decides": False}, **constraints)


def decisive(default: Any = ..., **constraints: Any) -> Any:
    """A field that decides a result, said for one whose name sounds otherwise. Takes what `pydantic.Field` takes."""
    return Field(default, json_schema_extra={"decides": True}, **constraints)


def decides(field: FieldInfo) -> bool:
    """Whether a field of a configuration decides the result of the stages that read it."""
    declared = field.json_schema_extra
    return not isinstance(declared, dict) or declared.get("decides", True) is True


def tells_class(field: FieldInfo) -> bool:
    """Whether a field, such as `provider`, says by its only value which class of several its configuration is of."""
    return get_origin(field.annotation) is Literal and len(get_args(field.annotation)) == 1


@functools.cache
def _nested_defaults(kind: type[Config]) -> dict[str, BaseModel]:
    """The defaults of a configuration's fields that are configurations themselves."""
    defaults = {name: field.get_default(call_default_factory=True) for name, field in kind.model_fields.items()}
    return {name: default for name, default in defaults.items() if isinstance(default, BaseModel)}


def _lay(default: BaseModel, value: Any) -> Any:
    """Settings on top of those of a default, unless they make it one of another class."""
    if not isinstance(value, Mapping):
        return value
    own = {name: getattr(default, name) for name in type(default).model_fields}
    tags = (name for name, field in type(default).model_fields.items() if tells_class(field))
    if any(value.get(name, own[name]) != own[name] for name in tags):
        return value
    nested = (name for name in value if isinstance(own.get(name), BaseModel))
    return own | dict(value) | {name: _lay(own[name], value[name]) for name in nested}


ConfigT = TypeVar("ConfigT", bound=Config)
_UNKNOWN, _HIDDEN = "there is no such setting", "what is given cannot stand here; it is a secret and not shown"


def load_config(model: type[ConfigT], path: str | Path | None = None, overrides: Sequence[str] = ()) -> ConfigT:
    """Read YAML at `path` (or the model's defaults), apply `key.path=value` words, and validate.

    Raises ConfigError naming every wrong key, with its line and the nearest right one.
    """
    words = split_words(overrides)
    check_overlap(words, "command line")
    origins = {key: f"command line: {key}{_shown(key, text)}" for key, text in words.items()}
    values, lines = ({}, {}) if path is None else read_mapping(_read_file(Path(path)), str(path))
    for key in masked_keys(values):
        if not any(one in words for one in prefixes(key)):
            fix = f"give it again, by {key}=… or in the file"
            what = f"{key} {'is' if _is_secret(key) else 'holds'} a secret that was masked"
            raise ConfigError(what, where=f"{path}, line {lines[key]}", fix=fix)
    return _settle(model, values, words, origins, _places(path, lines))


def from_values(model: type[ConfigT], base: Mapping[str, Any], settings: Mapping[str, Any], where: str = "") -> ConfigT:
    """A configuration of plain values with some of its settings, by their paths, replaced.

    `where` tells in an error where they come from. Raises ConfigError as `load_config` does.
    """
    check_overlap(settings, where)
    return _settle(model, copy.deepcopy(dict(base)), settings, dict.fromkeys(settings, where), {})


def read_config(model: type[ConfigT], content: bytes, where: str) -> ConfigT:
    """The configuration that `to_yaml` wrote. Raises ConfigError as `load_config` does."""
    values, lines = read_mapping(content, where)
    return _settle(model, values, {}, {}, _places(where, lines))


def to_yaml(config: BaseModel) -> str:
    """The resolved configuration as YAML that `load_config` reads back to an equal one. Secrets are masked."""
    return show_yaml(config.model_dump(mode="json"))


def show_yaml(values: Mapping[str, Any]) -> str:
    """Settings as YAML, in the order of their fields. Secrets are masked."""
    return write_yaml(mask_secrets(dict(values)))


def identity(value: Any) -> Any:
    """JSON that stands for what decides a result: of configurations the fields that do, of input files the content.

    Takes any structure of configurations and JSON values.
    """
    if isinstance(value, InputPath):
        return value.identity()
    if isinstance(value, BaseModel):
        fields = type(value).model_fields
        items = {name: getattr(value, name) for name, field in fields.items() if decides(field)}
        revision = items.get("revision") or None
        return {
            name: item.identity(revision) if isinstance(item, InputPath) else identity(item)
            for name, item in items.items()
        }
    if isinstance(value, Mapping):
        return {str(key): identity(item) for key, item in value.items()}
    return [identity(item) for item in value] if isinstance(value, list | tuple) else value


def fingerprint(value: Any) -> str:
    """Twelve hex digits that stand for the identity of a configuration, or of any structure of JSON values and
    configurations."""
    return hashlib.sha256(json.dumps(identity(value), sort_keys=True).encode()).hexdigest()[:12]


def flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    """Nested settings as `{"a.b": value}`, for showing and for comparing two configurations."""
    if not isinstance(value, dict) or not value:
        return {prefix: value}
    flat: dict[str, Any] = {}
    for key, item in value.items():
        flat |= flatten(item, f"{prefix}.{key}" if prefix else str(key))
    return flat


def changes(old: Any, new: Any, most: int | None = None) -> list[str]:
    """What differs between two structures of settings, as `a.b 1 → 2`; those past `most` are counted. Secrets are
    masked, so that one in the place of another makes no difference here."""
    before, after = flatten(mask_secrets(old)), flatten(mask_secrets(new))
    differ = [key for key in sorted(before | after) if before.get(key) != after.get(key)]
    shown = [f"{key} {before.get(key)} → {after.get(key)}" for key in differ[:most]]
    return shown + ([f"and {len(differ) - len(shown)} more"] if len(differ) > len(shown) else [])


def _settle(
    model: type[ConfigT],
    values: dict[str, Any],
    settings: Mapping[str, Any],
    origins: Mapping[str, str],
    places: Mapping[str, str],
) -> ConfigT:
    """Values with settings on top, read by their types and validated. `origins` tells where each setting comes from,
    and `places` where each value does, by key."""
    for key, value in settings.items():
        assign(values, key, value, model, origins[key])
    remember_secrets(values)
    walk = Walk()
    read = walk.model((model,), values, "", None)
    problems = {key: _HIDDEN if _is_secret(key) else said for key, said in walk.problems.items()}
    try:
        config = model.model_validate(read)
    except ValidationError as error:
        for item in error.errors():
            key = _key(read, item)
            if not any(known in problems for known in prefixes(key)):
                problems[key] = _describe(item, key, walk.known)
    if not problems:
        return config
    shown = [f"  {key or 'settings'}: {said}{_place(key, said, origins, places)}" for key, said in problems.items()]
    plural = "settings are" if len(shown) > 1 else "setting is"
    raise ConfigError(f"{len(shown)} {plural} wrong\n" + "\n".join(shown))


def _shown(key: str, text: str) -> str:
    """What stands behind a key on the command line, unless it is a secret or may hold one."""
    return f"={MASK if _is_secret(key) else '…' if text.lstrip()[:1] in ('{', '[') else text}"


def _is_secret(key: str) -> bool:
    return any(names_secret(part, "a text") for part in key.split("."))


def _read_file(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        beside = [p.name for p in path.parent.glob("*.yaml")] if path.parent.is_dir() else []
        raise ConfigError("configuration file not found", where=str(path), fix=suggest(path.name, beside)) from None
    except IsADirectoryError:
        raise ConfigError("a folder is no configuration file", where=str(path), fix="name a file in it") from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"configuration file cannot be read: {error}", where=repr(str(path))) from None


def _places(path: Any, lines: Mapping[str, int]) -> dict[str, str]:
    return {} if path is None else {key: f"{path}, line {line}" for key, line in lines.items()} | {"": str(path)}


def _place(key: str, said: str, origins: Mapping[str, str], places: Mapping[str, str]) -> str:
    """Where a key, a part of it, or the nearest that it is a part of comes from. Of a setting that there is not, no
    value is shown: its name may be a secret's, misspelt."""
    parts = [one for one in origins if key and one.startswith(f"{key}.")]
    near = [(origins, prefixes(key)), (origins, parts), (places, [*prefixes(key), ""])]
    found = next((known[one] for known, keys in near for one in keys if known.get(one)), "")
    if said.startswith(_UNKNOWN) and found in origins.values():
        found = found.partition("=")[0]
    return f"  [{found}]" if found else ""


def _key(values: Any, problem: Any) -> str:
    """The key that pydantic blames, without the names of union members that it puts in between."""
    parts, place, location = [], values, problem["loc"]
    for number, part in enumerate(location, start=1):
        known = isinstance(place, Mapping) and part in place
        if known or (isinstance(place, list) and isinstance(part, int) and part < len(place)):
            place = place[part]
        elif number < len(location) or problem["type"] != "missing":
            continue
        parts.append(str(part))
    return ".".join(parts)


def _describe(problem: Any, key: str, known: Mapping[str, Iterable[str]]) -> str:
    """`known` are the names of the settings of each part."""
    message = str(problem["msg"]).removeprefix("Value error, ")
    if problem["type"] == "extra_forbidden":
        parent, _, name = key.rpartition(".")
        return f"{_UNKNOWN}; {suggest(name, known.get(parent, ()))}"
    if problem["type"] == "union_tag_not_found":
        return f"{problem['ctx']['discriminator'].strip(chr(39))} is missing, which says of what kind it is"
    if problem["type"] != "missing" and _is_secret(key):
        return _HIDDEN
    if problem["type"] != "missing" and not isinstance(problem["input"], Mapping):
        message += f" (got {problem['input']!r})"
    return message
