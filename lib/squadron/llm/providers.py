"""From settings to models: opening one, checking beforehand that it is there, and what it needs to run."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Sequence
from typing import Any

from squadron.core import config
from squadron.core.config import fingerprint
from squadron.core.errors import ConfigError, ResourceError
from squadron.core.profile import Profile, WorkerResources
from squadron.llm.batch.budget import Budget
from squadron.llm.chat import ChatModel, ModelUnavailable, secret
from squadron.llm.settings import AnyModel, HfModel, LocalModel, OpenAiModel, ScriptedModel, VllmModel
from squadron.train.models.errors import check_folder

_CHECK_TIMEOUT_S = 15.0


def open_model(settings: AnyModel, budget: Budget | None = None) -> ChatModel:
    """The model of these settings, loaded. Raises ModelUnavailable or ConfigError if it cannot be used."""
    if isinstance(settings, LocalModel) and settings.rehearsed is not None:
        from squadron.llm.backends.rehearsed import RehearsedChat

        return RehearsedChat(_open(settings, budget), settings.rehearsed)
    return _open(settings, budget)


def _open(settings: AnyModel, budget: Budget | None) -> ChatModel:
    match settings:
        case HfModel():
            from squadron.llm.backends.hf import HfChat

            return HfChat(settings)
        case VllmModel():
            from squadron.llm.backends.vllm import VllmChat

            return VllmChat(settings)
        case OpenAiModel():
            from squadron.llm.backends.openai_client import OpenAiChat

            return OpenAiChat(settings, budget)
        case ScriptedModel():
            from squadron.llm.backends.scripted import ScriptedChat

            return ScriptedChat(settings)


def check_models(models: Sequence[AnyModel]) -> None:
    """See to it before any work starts that every model is there: no weight is read and nothing is paid.

    Raises ConfigError for two models of one name and for a key that the environment lacks (named, never shown),
    ModelUnavailable for an address where nobody answers or a folder that is no model, InputError for a recording that
    cannot be read.
    """
    names = [model.name for model in models]
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigError(f"more than one model is called {', '.join(repeated)}", where="models", fix="rename them")
    for model in models:
        if isinstance(model, OpenAiModel):
            _check_address(model, secret(model.api_key_env))
        elif isinstance(model, ScriptedModel):
            open_model(model)
        else:
            _check_folder(model)


def identity(settings: AnyModel) -> str:
    """Twelve hex digits that stand for all that decides a model's answers: not its name, its prices or its limits. The
    same files elsewhere are the same model."""
    decides: dict[str, Any] = config.identity(settings)
    named = ("name", "family", "size_b", "max_length")
    return fingerprint({key: value for key, value in decides.items() if key not in named})


def resources(settings: AnyModel, profile: Profile) -> WorkerResources | None:
    """The share of a node that a model needs; None where it only talks to a server, or follows rules."""
    if isinstance(settings, OpenAiModel | ScriptedModel):
        return None
    if isinstance(settings, LocalModel) and settings.rehearsed is not None:
        return profile.worker
    cards = settings.gpus if isinstance(settings, VllmModel) else None
    return card_share(profile, cards)


def card_share(profile: Profile, cards: int | None) -> WorkerResources:
    """The share of a node that comes with so many cards; None: with one, where the profile has cards at all."""
    share = profile.trainer if profile.trainer is not None and profile.trainer.gpus else None
    if share is not None:
        count = cards or 1
        return share.model_copy(update={"gpus": count * share.gpus, "cpus": count * share.cpus})
    return profile.worker if cards is None else WorkerResources(gpus=cards)


def _check_address(model: OpenAiModel, key: str | None) -> None:
    """Any answer of the server will do, except one that says that the key is wrong."""
    request = urllib.request.Request(f"{model.base_url}/models")
    if key is not None:
        request.add_header("Authorization", f"Bearer {key}")
    try:
        with urllib.request.urlopen(request, timeout=_CHECK_TIMEOUT_S):
            return
    except urllib.error.HTTPError as error:
        if error.code in (401, 403):
            fix = (
                f"check the variable {model.api_key_env}"
                if model.api_key_env
                else "name the key's variable in api_key_env"
            )
            what = f"the server of {model.name} refuses the key (HTTP {error.code})"
            raise ModelUnavailable(what, where=model.base_url, fix=fix) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        fix = "start the server, or correct base_url"
        raise ModelUnavailable(f"{model.name} cannot be reached: {reason}", where=model.base_url, fix=fix) from None


def _check_folder(model: HfModel | VllmModel) -> None:
    if isinstance(model, VllmModel) and model.rehearsed is None:
        import importlib.util

        if importlib.util.find_spec("vllm") is None:
            fix = "pip install 'squadron[gpu]' -c constraints/gpu.txt, or set the provider to hf"
            raise ResourceError(f"{model.name} needs vLLM, which is not installed", where="provider: vllm", fix=fix)
    check_folder(model.path, model.name, ModelUnavailable)
