"""What to tell the user where a model, its tokenizer or its chat template cannot be used: one wording for all."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any

from squadron.core.errors import ConfigError, InputError, SquadronError

_SETTINGS = ("config.json", "modules.json", "adapter_config.json")
"""One of these stands in every folder of transformers, sentence-transformers or peft."""
_FIX = "give a hub name (organisation/model) or a folder with config.json and safetensors files"


@contextlib.contextmanager
def explaining_load_errors(
    path: str,
    who: str = "the model",
    kind: type[SquadronError] = InputError,
    *,
    fix: str = _FIX,
    also: tuple[type[Exception], ...] = (),
) -> Iterator[None]:
    """Turn what transformers and peft raise for files that are none of a model's, or are cut off, into an error of this
    kind that says which model, where, and what to do. `who` is what the user calls the model; `also` are further
    errors that mean the same."""
    try:
        yield
    except (*load_errors(), *also) as error:
        raise load_error(path, error, who, kind, fix=fix) from error


def load_error(
    path: str, error: Exception, who: str = "the model", kind: type[SquadronError] = InputError, *, fix: str = _FIX
) -> SquadronError:
    """What `explaining_load_errors` raises for an error of transformers or peft."""
    said = str(error).strip()
    if "trust_remote_code" in said or "auto_map" in said:
        fix = "use a model that transformers knows; many are published again in such a form (-hf)"
        return kind(f"{who} brings code of its own, which is never run here", where=path, fix=fix)
    return kind(f"{who} cannot be loaded: {_missing(path) or said.partition(chr(10))[0]}", where=path, fix=fix)


def check_folder(path: str, who: str = "the model", kind: type[SquadronError] = InputError) -> None:
    """Raise an error of this kind if a path that can only be a local folder holds no model. Reads no file."""
    if missing := _missing(path):
        raise kind(f"{who} cannot be loaded: {missing}", where=path, fix=_FIX)


def check_chat_template(
    tokenizer: Any,
    where: str,
    who: str = "the model",
    kind: type[SquadronError] = ConfigError,
    fix: str = "take a model tuned for chat, or give its tokenizer a chat template and save it in a folder",
) -> None:
    """Raise an error of this kind if a tokenizer cannot shape conversations."""
    if not getattr(tokenizer, "chat_template", None):
        raise kind(f"{who} has no chat template", where=where, fix=fix)


def load_errors() -> tuple[type[Exception], ...]:
    """What transformers and peft raise for files that are none of a model's, or are cut off."""
    from safetensors import SafetensorError

    return (OSError, ValueError, ImportError, SafetensorError)


def _missing(path: str) -> str:
    """What a local folder lacks to hold a model; nothing where `path` may be a name of the hub, or another URL."""
    looks_local = path.startswith((".", "/", "~")) or os.path.isdir(path)
    if not looks_local or any(os.path.exists(os.path.join(path, name)) for name in _SETTINGS):
        return ""
    return "it has no config.json" if os.path.isdir(path) else "there is no such folder"
