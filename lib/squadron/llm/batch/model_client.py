"""A chat model or a reward model as a worker holds it: what tells it apart, what it needs, and what it is asked.

Answers and scores alike are entries of a `KeyedLog`, under the content of what was asked.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from squadron.core import config
from squadron.core.config import fingerprint
from squadron.core.folder import Folder
from squadron.core.json_text import storable
from squadron.core.profile import Profile, WorkerResources
from squadron.llm.batch.answer_cache import Entry
from squadron.llm.batch.budget import Budget
from squadron.llm.chat import ChatReply, ChatRequest
from squadron.llm.providers import card_share, check_models, identity, open_model, resources
from squadron.llm.rewards.open import open_reward
from squadron.llm.rewards.reward import Answered, Score
from squadron.llm.rewards.settings import AnyReward, JudgeReward, LocalReward
from squadron.llm.settings import AnyModel, HfModel, OpenAiModel, ScriptedModel, VllmModel

Served = AnyModel | AnyReward
Item = ChatRequest | Answered
Reply = ChatReply | Score

_HALVES = "half characters (lone surrogates) in its answers, kept as U+FFFD"

TALKS = WorkerResources(cpus=0.01)
"""What an actor reserves that only waits for a server."""


def is_chat(settings: Served) -> bool:
    """Whether these are a chat model's settings, and not a reward model's."""
    return isinstance(settings, HfModel | VllmModel | OpenAiModel | ScriptedModel)


def served_identity(settings: Served) -> str:
    """Twelve hex digits that stand for all that decides what it answers."""
    return identity(settings) if is_chat(settings) else reward_identity(settings)  # type: ignore[arg-type]


def served_resources(settings: Served, profile: Profile) -> WorkerResources | None:
    """The share of a node that a worker with it needs; None where it only waits for a server, or follows rules."""
    return resources(settings, profile) if is_chat(settings) else reward_resources(settings, profile)  # type: ignore[arg-type]


def log_folder(store: Folder, settings: Served) -> Folder:
    """Where among the logs of a store a model's answers or scores are kept."""
    name = getattr(settings, "name", settings.provider)
    readable = "".join(c if c.isalnum() or c in "-_." else "-" for c in name)[:48]
    return store / f"{readable}-{served_identity(settings)}"


def reward_identity(reward: AnyReward) -> str:
    """Twelve hex digits that stand for all that decides a score."""
    decides: dict[str, Any] = config.identity(reward)
    return fingerprint(decides | ({"model": identity(reward.model)} if isinstance(reward, JudgeReward) else {}))


def reward_resources(reward: AnyReward, profile: Profile) -> WorkerResources | None:
    """The share of a node that a reward model needs; None where its judge only waits for a server."""
    if isinstance(reward, JudgeReward):
        return resources(reward.model, profile)
    if isinstance(reward, LocalReward):
        return card_share(profile, reward.gpus if reward.gpus > 1 else None)
    return profile.worker


def failed_entry(item: Item, error: str) -> Entry:
    """The entry of an item whose worker came to nothing."""
    if isinstance(item, ChatRequest):
        return chat_entry(ChatReply(item.key, finish_reason="error", error=error))
    return score_entry(Score(item.key, None, error))


def item_key(known: str, item: Item) -> str:
    """What an item is kept under: `known` is the identity of whoever is asked."""
    if isinstance(item, ChatRequest):
        said: list[Any] = [[turn["role"], turn["content"]] for turn in item.messages]
        asked = [known, said, *item.sampling.model_dump(mode="json").values()]
    else:
        asked = [known, item.instruction, item.response, item.reference, item.score]
    return hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:32]


def check_served(settings: Served) -> None:
    """See to it before any work starts that a model is there: no weight is read and nothing is paid. Raises as
    `check_models` does."""
    if isinstance(settings, JudgeReward):
        check_models([settings.model])
    elif isinstance(settings, LocalReward):
        check_models([HfModel(name="the reward model", path=settings.path)])
    elif is_chat(settings):
        check_models([settings])  # type: ignore[list-item]


def open_served(settings: Served, budget: Budget | None = None) -> Any:
    """The model, loaded. Raises ModelUnavailable or ConfigError if it cannot be used."""
    if is_chat(settings):
        return open_model(settings, budget)  # type: ignore[arg-type]
    return open_reward(settings, partial(open_model, budget=budget))  # type: ignore[arg-type]


def answer(opened: Any, items: Sequence[Item]) -> Iterator[Entry]:
    """An entry for every item, under the item's `key`, in the order of completion."""
    if not items:
        return
    if isinstance(items[0], ChatRequest):
        yield from map(chat_entry, opened.chat(items))
    else:
        yield from map(score_entry, opened.score(items))


def chat_entry(reply: ChatReply) -> Entry:
    """A reply as it is kept. A model that ends within a character may write half of a surrogate pair."""
    text = storable(reply.text)
    notes = [storable(reply.note)] * bool(reply.note) + [_HALVES] * (text != reply.text)
    return {
        "key": reply.key,
        "text": text,
        "finish_reason": reply.finish_reason,
        "prompt_tokens": reply.prompt_tokens,
        "completion_tokens": reply.completion_tokens,
        "reasoning_tokens": reply.reasoning_tokens,
        "cost_usd": reply.cost_usd,
        "seconds": round(reply.seconds, 4),
        "attempts": reply.attempts,
        "error": storable(reply.error),
        "note": "; ".join(notes),
    }


def score_entry(score: Score) -> Entry:
    """A score as it is kept."""
    return {"key": score.key, "value": score.value, "error": storable(score.error), "cost_usd": score.cost_usd}


def reply_of(item: Item, entry: Entry) -> Reply:
    """The reply to an item that `entry` keeps."""
    if isinstance(item, ChatRequest):
        return ChatReply(**{**entry, "key": item.key})
    return Score(item.key, entry["value"], entry["error"], entry["cost_usd"])
