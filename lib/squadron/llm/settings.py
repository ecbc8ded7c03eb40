"""Which models there are and how each is reached. Keys are named by their environment variable, never written here."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from squadron.core.config import Config, operational
from squadron.core.inputs import InputPath
from squadron.core.rehearsal import Model, StandIns


class Rehearsed(Config):
    """A stand-in of random weights: it generates as ever, but few tokens, and says one of the replies that fit."""

    replies: tuple[tuple[str, tuple[str, ...]], ...] = Field(
        (), description="regular expressions, searched for in the last message, and what is said where one is found"
    )
    max_tokens: int = Field(8, ge=1)


Continuation = Literal["continue_final_message", "prefix", "last_message", "none"]


class ModelSettings(Config):
    """What every model has."""

    name: str = Field(min_length=1, description="what reports call it; no two models share one")
    family: str | None = Field(None, description="models of one family differ in size")
    size_b: float | None = Field(None, gt=0, description="parameters in billions: the order inside its family")
    system: str | None = Field(None, description="system message before every conversation")


class LocalModel(ModelSettings):
    """A model of the hub or of a local folder."""

    path: Annotated[InputPath, Model("causal")]
    revision: str | None = None
    rehearsed: Rehearsed | None = operational(None, description="this is a stand-in, in a rehearsal")

    def rehearse(self, stand_ins: StandIns) -> Self:
        """Random weights have nothing to say."""
        return self.model_copy(update={"rehearsed": Rehearsed.model_validate({"replies": stand_ins.replies})})


class HfModel(LocalModel):
    """A model of the hub or of a local folder, by transformers."""

    provider: Literal["hf"] = "hf"
    precision: Literal["fp32", "bf16", "auto"] = "auto"
    batch_size: int = operational(
        32, ge=1, description="conversations generated together; halved where memory runs out"
    )


class VllmModel(LocalModel):
    """A model of the hub or of a local folder, by vLLM on GPUs."""

    provider: Literal["vllm"] = "vllm"
    precision: Literal["bf16", "fp16", "auto"] = "auto"
    quantization: str | None = Field(None, description="vLLM's name: fp8, awq, gptq, …")
    gpus: int = operational(1, ge=1, description="cards that share the weights (tensor parallel)")
    max_length: int | None = Field(None, ge=16, description="tokens of prompt and answer; None: the model's own")
    gpu_memory: float = operational(0.9, gt=0, le=1, description="share of each card's memory that vLLM may take")


class OpenAiModel(ModelSettings):
    """A model behind an OpenAI-compatible address."""

    provider: Literal["openai"] = "openai"
    model: str = Field(description="what the server calls it")
    base_url: str = "https://api.openai.com/v1"
    api_key_env: str | None = operational(None, description="environment variable that holds the key; None: no key")
    max_concurrency: int = operational(64, ge=1, description="requests under way at once")
    requests_per_minute: float | None = operational(None, gt=0)
    tokens_per_minute: float | None = operational(None, gt=0, description="of prompts and answers together")
    timeout_s: float = operational(120.0, gt=0, description="for one attempt")
    max_attempts: int = operational(8, ge=1, description="a request that failed so often is kept as a failure")
    prompt_usd_per_million: float = operational(0.0, ge=0, description="price of a million tokens of prompts")
    completion_usd_per_million: float = operational(0.0, ge=0, description="price of a million tokens of answers")
    drop_params: tuple[Literal["temperature", "top_p", "seed", "stop"], ...] = Field(
        (), description="parameters that the model does not take; those that its server refuses are found out"
    )
    reasoning_effort: str | None = Field(None, description="minimal, low, medium, high, as the model has them")
    extra_body: dict[str, Any] = Field(
        default_factory=dict, description="further fields of the server's own, such as top_k or chat_template_kwargs"
    )
    tokenizer: Annotated[InputPath | None, Model("causal")] = Field(
        None,
        description="that of the model, by hub name or folder: turns are then continued by the server's /completions, "
        "from the very prompt that `hf` has; chat templates that trim what was said lose the end of a step",
    )
    continuation: Continuation | None = Field(
        None,
        description="how a turn is continued: by vLLM's and SGLang's field, by a flag of the message (DeepSeek's beta "
        "address, Mistral), by ending with the assistant's message (Ollama), or not at all (OpenAI); None: by the "
        "address",
    )

    @field_validator("base_url")
    @classmethod
    def _is_an_address(cls, value: str) -> str:
        if not value.startswith(("http://", "https://")):
            raise ValueError("an address begins with http:// or https://")
        if "@" in value.split("/")[2]:
            raise ValueError("an address holds no user name or password; name the key's variable in api_key_env")
        return value.rstrip("/")

    @property
    def continues_by(self) -> Continuation:
        """How its server continues a turn of the assistant's: as is stated, else as servers at such addresses do."""
        place = urlsplit(self.base_url)
        host = place.hostname or ""
        if self.continuation is not None:
            return self.continuation
        if host.endswith(("openai.com", "openai.azure.com")):
            return "none"
        if host.endswith("deepseek.com"):
            return "prefix" if place.path.startswith("/beta") else "none"
        if host.endswith("mistral.ai"):
            return "prefix"
        return "last_message" if place.port == 11434 else "continue_final_message"

    @property
    def can_continue(self) -> bool:
        """Whether it can go on with a turn of the assistant's. OpenAI's own models begin another."""
        return self.continues_by != "none"

    def rehearse(self, stand_ins: StandIns) -> Self:
        """Asked of a local server, which needs no key."""
        address, how = stand_ins.endpoint(self.model, self.base_url), self.continues_by
        return self.model_copy(update={"base_url": address, "api_key_env": None, "continuation": how})


class Rule(Config):
    """What a scripted model says to a conversation whose last message matches."""

    pattern: str = Field(description="regular expression, searched for in the last message")
    reply: str = Field(description="may hold \\1, \\2, … or \\g<name> of the pattern")

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, value: str) -> str:
        try:
            re.compile(value)
        except re.error as error:
            raise ValueError(f"not a regular expression: {error}") from None
        return value


class ScriptedModel(ModelSettings):
    """A model that follows rules, or replays a recorded file: JSON lines `{"messages": …, "text": …}`."""

    provider: Literal["scripted"] = "scripted"
    rules: tuple[Rule, ...] = Field((), description="the first that matches answers")
    replay: InputPath | None = None
    otherwise: str | None = Field(None, description="the answer where nothing matches; None: an error")

    @model_validator(mode="after")
    def _can_say_something(self) -> ScriptedModel:
        if not self.rules and self.replay is None and self.otherwise is None:
            raise ValueError("a scripted model needs rules, replay or otherwise")
        return self


AnyModel = Annotated[HfModel | VllmModel | OpenAiModel | ScriptedModel, Field(discriminator="provider")]
