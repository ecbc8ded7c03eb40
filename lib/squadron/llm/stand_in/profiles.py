"""What servers that speak OpenAI's protocol take, and in which words they refuse the rest.

OpenAI: https://platform.openai.com/docs/api-reference/chat. DeepSeek: https://api-docs.deepseek.com. vLLM:
https://docs.vllm.ai/en/latest/serving/openai_compatible_server.html. Ollama: https://docs.ollama.com/openai.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlsplit

_COMMON = frozenset(
    {"model", "messages", "max_tokens", "temperature", "top_p", "n", "stop", "seed", "stream", "stream_options",
     "presence_penalty", "frequency_penalty", "logprobs", "top_logprobs", "response_format", "tools", "tool_choice",
     "user"}
)  # fmt: skip
_OPENAI = _COMMON | {
    "max_completion_tokens", "reasoning_effort", "logit_bias", "parallel_tool_calls", "store", "metadata",
    "service_tier", "verbosity", "modalities",
}  # fmt: skip
_ROLES = frozenset({"system", "user", "assistant", "tool"})
_INT64 = 2**63


@dataclass(frozen=True)
class Profile:
    """How one kind of server behaves.

    `fields` it knows; `ignores` says whether it passes over others in silence. `reasons`: it thinks for so many tokens
    before each answer, counted and paid. `continues`: it goes on with a last message of the assistant, if the fields
    or the flag of the message say so.
    """

    name: str
    fields: frozenset[str] = _OPENAI
    ignores: bool = False
    roles: frozenset[str] = _ROLES
    most_stops: int = 4
    most_tokens: int = 128_000
    reasons: int = 0
    unsupported: frozenset[str] = frozenset()
    fixed: frozenset[str] = frozenset()
    continues: str = ""
    shows_reasoning: bool = False


_CHAT = Profile("openai", roles=_ROLES | {"developer"})
PROFILES: dict[str, Profile] = {
    profile.name: profile
    for profile in (
        _CHAT,
        replace(
            _CHAT,
            name="openai-reasoning",
            reasons=32,
            unsupported=frozenset({"max_tokens", "stop", "logprobs", "presence_penalty", "frequency_penalty"}),
            fixed=frozenset({"temperature", "top_p", "n"}),
        ),
        Profile("deepseek", _COMMON | {"prefix"}, ignores=True, most_stops=16, most_tokens=8192, continues="prefix"),
        Profile(
            "vllm",
            _OPENAI | {"add_generation_prompt", "continue_final_message", "top_k", "min_p", "chat_template_kwargs"},
            ignores=True,
            most_stops=1000,
            most_tokens=1_000_000,
            continues="continue_final_message",
        ),
        Profile("ollama", _COMMON, ignores=True, most_stops=1000, most_tokens=1_000_000, continues="always"),
    )
}
"""Kinds of servers by name."""


@dataclass(frozen=True)
class Refusal(Exception):
    """A body that the server does not take: the fields of the error that it answers with, status 400."""

    message: str
    param: str | None = None
    code: str | None = None

    @property
    def body(self) -> dict[str, Any]:
        """The JSON of it."""
        kind = "invalid_request_error"
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}


def find_profile(model: str, base_url: str) -> Profile:
    """The kind of server at an address, by its host and port, and by the model where one host has several kinds."""
    place = urlsplit(base_url)
    host = place.hostname or ""
    if host.endswith(("openai.com", "openai.azure.com")):
        reasons = re.match(r"(o\d|gpt-5)", model)
        return PROFILES["openai-reasoning" if reasons else "openai"]
    if host.endswith("deepseek.com"):
        return PROFILES["deepseek"]
    return PROFILES["ollama" if place.port == 11434 else "vllm"]


def check_body(profile: Profile, body: Any) -> None:
    """Raise Refusal for a body that such a server does not take."""
    if not isinstance(body, Mapping):
        raise Refusal("We could not parse the JSON body of your request.")
    asked = "prompt" if "prompt" in body else "messages"
    for name in ("model", asked):
        if name not in body:
            raise Refusal(f"Missing required parameter: '{name}'.", name, "missing_required_parameter")
    if not profile.ignores and (unknown := sorted(set(body) - profile.fields - {"prompt"})):
        raise Refusal(f"Unrecognized request argument supplied: {unknown[0]}", unknown[0])
    if asked == "messages":
        _check_messages(profile, body["messages"])
    _check_support(profile, body)
    _check_ranges(profile, body)
    if body.get("continue_final_message") and body.get("add_generation_prompt", True):
        raise Refusal("Cannot set both `continue_final_message` and `add_generation_prompt` to True.")


def _check_messages(profile: Profile, messages: Any) -> None:
    if not isinstance(messages, list) or not messages:
        raise Refusal("Invalid 'messages': empty array.", "messages", "empty_array")
    for number, message in enumerate(messages):
        where = f"messages[{number}]"
        if not isinstance(message, Mapping) or message.get("role") not in profile.roles:
            role = message.get("role") if isinstance(message, Mapping) else message
            raise Refusal(f"Invalid value: {role!r}.", f"{where}.role", "invalid_value")
        content = message.get("content")
        if content is None and not message.get("tool_calls"):
            what = f"Invalid value for 'content': expected a string, got null. ({where})"
            raise Refusal(what, f"{where}.content", "invalid_type")


def _check_support(profile: Profile, body: Mapping[str, Any]) -> None:
    for name in sorted(profile.unsupported & set(body)):
        instead = " Use 'max_completion_tokens' instead." if name == "max_tokens" else ""
        what = f"Unsupported parameter: '{name}' is not supported with this model.{instead}"
        raise Refusal(what, name, "unsupported_parameter")
    for name in sorted(profile.fixed & set(body)):
        if body[name] != 1:
            what = (
                f"Unsupported value: '{name}' does not support {body[name]} with this model. "
                "Only the default (1) value is supported."
            )
            raise Refusal(what, name, "unsupported_value")


def _check_ranges(profile: Profile, body: Mapping[str, Any]) -> None:
    ranges = {"temperature": (0, 2), "top_p": (0, 1), "seed": (-_INT64, _INT64 - 1)}
    ranges |= dict.fromkeys(("max_tokens", "max_completion_tokens"), (1, profile.most_tokens))
    for name, (low, high) in ranges.items():
        value = body.get(name)
        if value is not None and not (isinstance(value, int | float) and low <= value <= high):
            what = f"Invalid '{name}': expected a number from {low} to {high}, but got {value!r} instead."
            raise Refusal(what, name, "invalid_value")
    stops = body.get("stop")
    if isinstance(stops, list) and len(stops) > profile.most_stops:
        what = f"Invalid 'stop': array too long. Expected at most {profile.most_stops}, but got {len(stops)}."
        raise Refusal(what, "stop", "array_above_max_length")
