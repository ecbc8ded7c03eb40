"""Strict configuration: frozen pydantic models from YAML and `key.path=value` words.

A misspelt key or a wrong type is refused before anything starts, with its path, its line in the file, and the nearest
right name.
"""

from __future__ import annotations

import copy
import functools
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic.fields import FieldInfo

from squadron.core.errors import ConfigError, suggest
from squadron.core.inputs import InputPath

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
_SECRET = re.compile(r"(?i)(^|_|-)(token|(api|access|private)_?key|secret|password|passwd|credential)s?($|_|-)")
_VARIABLE = re.compile(r"[A-Z][A-Z0-9]*(_[A-Z0-9]+)+")


def load_config(model: type[ConfigT], path: str | Path | None = None, overrides: Sequence[str] = ()) -> ConfigT:
    """Read YAML at `path` (or the model's defaults), apply `key.path=value` words, and validate.

    Raises ConfigError naming every wrong key, with its line and the nearest right one.
    """
    values: dict[str, Any] = {}
    lines: dict[str, int] = {}
    if path is not None:
        values, lines = _read_yaml(Path(path))
    words = {key: f"command line: {word}" for word in overrides for key in [_apply(values, word)]}
    return _validate(model, values, path, lines, words)


def from_values(model: type[ConfigT], base: Mapping[str, Any], settings: Mapping[str, Any], where: str = "") -> ConfigT:
    """A configuration of plain values with some of its settings, by their paths, replaced.

    `where` tells in an error where they come from. Raises ConfigError as `load_config` does.
    """
    values = copy.deepcopy(dict(base))
    for key, value in settings.items():
        _set(values, key, value, where)
    return _validate(model, values, None, {}, dict.fromkeys(settings, where))


def to_yaml(config: BaseModel) -> str:
    """The resolved configuration as YAML that `load_config` reads back to an equal one. Secrets are masked."""
    return show_yaml(config.model_dump(mode="json"))


def show_yaml(values: Mapping[str, Any]) -> str:
    """Settings as YAML, in the order of their fields. Secrets are masked."""
    return yaml.safe_dump(mask_secrets(dict(values)), sort_keys=False, allow_unicode=True)


def mask_secrets(value: Any) -> Any:
    """The same structure with the values of keys that name secrets replaced by `***`."""
    if isinstance(value, dict):
        return {k: "***" if _names_secret(k, v) else mask_secrets(v) for k, v in value.items()}
    return [mask_secrets(item) for item in value] if isinstance(value, list) else value


def identity(value: Any) -> Any:
    """JSON that stands for what decides a result: of configurations the fields that do, of input files the content.

    Takes any structure of configurations and JSON values.
    """
    if isinstance(value, InputPath):
        return value.identity()
    if isinstance(value, BaseModel):
        fields = type(value).model_fields
        return {name: identity(getattr(value, name)) for name, field in fields.items() if decides(field)}
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
    """What differs between two structures of settings, as `a.b 1 → 2`; those past `most` are counted."""
    before, after = flatten(old), flatten(new)
    differ = [key for key in sorted(before | after) if before.get(key) != after.get(key)]
    shown = [f"{key} {before.get(key)} → {after.get(key)}" for key in differ[:most]]
    return shown + ([f"and {len(differ) - len(shown)} more"] if len(differ) > len(shown) else [])


def _validate(
    model: type[ConfigT], values: dict[str, Any], path: Any, lines: dict[str, int], words: Mapping[str, str]
) -> ConfigT:
    """`lines` and `words` tell where a setting comes from: a line of the file at `path`, or somewhere else."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        problems = [_describe(model, item, path, lines, words) for item in error.errors()]
        plural = "settings are" if len(problems) > 1 else "setting is"
        raise ConfigError(f"{len(problems)} {plural} wrong\n" + "\n".join(problems)) from None


def _names_secret(key: Any, value: Any) -> bool:
    if str(key).endswith("_env") and _VARIABLE.fullmatch(str(value)):
        return False  # the name of a variable that holds one
    return isinstance(value, str) and value != "" and _SECRET.search(str(key)) is not None


def _read_yaml(path: Path) -> tuple[dict[str, Any], dict[str, int]]:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        beside = [p.name for p in path.parent.glob("*.yaml")] if path.parent.is_dir() else []
        raise ConfigError("configuration file not found", where=str(path), fix=suggest(path.name, beside)) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"configuration file cannot be read: {error}", where=str(path)) from None
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"not valid YAML: {error}", where=str(path)) from None
    if values is None:
        return {}, {}
    if not isinstance(values, dict):
        raise ConfigError(f"expected settings, found a {type(values).__name__}", where=str(path))
    lines: dict[str, int] = {}
    _collect_lines(node, "", lines, path)
    return values, lines


def _collect_lines(node: yaml.Node | None, prefix: str, lines: dict[str, int], path: Path) -> None:
    if not isinstance(node, yaml.MappingNode):
        return
    for key, value in node.value:
        name = f"{prefix}.{key.value}" if prefix else str(key.value)
        line = key.start_mark.line + 1
        if name in lines:
            raise ConfigError(
                f"{name} is set twice",
                where=f"{path}, lines {lines[name]} and {line}",
                fix="keep one of them",
            )
        lines[name] = line
        _collect_lines(value, name, lines, path)


def _apply(values: dict[str, Any], word: str) -> str:
    """Set one `key.path=value` in `values` and return the key."""
    key, equals, text = word.partition("=")
    if not equals or not key:
        raise ConfigError(f"{word!r} is not a setting", where="command line", fix="write key.path=value")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        value = text
    _set(values, key, value, f"command line: {word}")
    return key


def _set(values: dict[str, Any], key: str, value: Any, where: str) -> None:
    *parents, last = key.split(".")
    place = values
    for parent in parents:
        child = place.get(parent)
        if child is None:
            child = place[parent] = {}
        if not isinstance(child, dict):
            raise ConfigError(f"{parent} is a value and has no setting {last!r}", where=where)
        place = child
    place[last] = value


def _describe(model: type[BaseModel], item: Any, path: Any, lines: dict[str, int], words: Mapping[str, str]) -> str:
    key = ".".join(str(part) for part in item["loc"])
    place = words.get(key, "")
    if not place and path is not None:
        known = next((k for k in _prefixes(key) if k in lines), "")
        place = f"{path}, line {lines[known]}" if known else str(path)
    message = item["msg"].removeprefix("Value error, ")
    if item["type"] == "extra_forbidden":
        parent = _model_at(model, [str(part) for part in item["loc"][:-1]])
        message = f"there is no such setting; {suggest(str(item['loc'][-1]), parent.model_fields if parent else ())}"
    elif item["type"] != "missing" and not isinstance(item["input"], Mapping):
        message += f" (got {item['input']!r})"
    return f"  {key or 'settings'}: {message}" + (f"  [{place}]" if place else "")


def _prefixes(key: str) -> list[str]:
    parts = key.split(".")
    return [".".join(parts[:n]) for n in range(len(parts), 0, -1)]


def _model_at(model: type[BaseModel], path: list[str]) -> type[BaseModel] | None:
    """The model that holds the settings at `path`, through optional and union fields."""
    current: type[BaseModel] | None = model
    for part in path:
        if current is None or part not in current.model_fields:
            return current
        annotation = current.model_fields[part].annotation
        candidates = [annotation, *get_args(annotation)]
        current = next((c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)), None)
    return current
