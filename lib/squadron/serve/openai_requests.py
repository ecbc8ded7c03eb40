"""Requests of OpenAI's interface. What would change an answer and is not offered is refused by name; what changes none
is taken, and not looked at; a null stands for a field that is left out, as OpenAI takes it.

After the reference of the `openai` Python client, 3.57, whose every answer can be given back as a message.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema, model_validator
from pydantic_core import PydanticCustomError

from squadron.serve.body import BadBody, read_json

MOST_TOKENS = 2**20
MOST_ANSWERS = 256
_MOST_STOPS, _LONGEST_STOP, _MOST_ANSWERS, _MOST_TOP, _MOST_TOOLS = 16, 256, 16, 20, 128
Stop = Annotated[str, Field(max_length=_LONGEST_STOP)]
Seed = Annotated[int, Field(ge=-(2**63), lt=2**63)]
Model = Annotated[str, Field(min_length=1, max_length=512)]
TokenIds = Annotated[list[Annotated[int, Field(ge=0, lt=2**31)]], Field(min_length=1)]


def _refuse(value: Any) -> None:
    if value not in ("", [], {}):
        raise PydanticCustomError("unsupported_parameter", "this is not offered here; leave it out")


def _invalid(param: str, what: str) -> PydanticCustomError:
    """A mistake that the values of several fields make together."""
    return PydanticCustomError("invalid_value", "{what}", {"what": what, "param": param})


Refused = Annotated[None, BeforeValidator(_refuse), Field(None, description="not offered")]
Ignored = Annotated[
    None, BeforeValidator(lambda _: None), WithJsonSchema({}), Field(None, description="taken, and not looked at")
]


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _null_is_left_out(cls, given: Any) -> Any:
        return {key: value for key, value in given.items() if value is not None} if isinstance(given, dict) else given


class Part(_Record):
    """A piece of a message: text, or what the assistant said when it refused."""

    type: Literal["text", "refusal"]
    text: str | None = None
    refusal: str | None = None
    annotations: Ignored
    cache_control: Ignored
    prompt_cache_breakpoint: Ignored

    @model_validator(mode="after")
    def _has_its_text(self) -> Part:
        if getattr(self, self.type) is None or (self.text is not None) == (self.refusal is not None):
            raise PydanticCustomError("invalid_value", "a part of type {type} has this: {type}", {"type": self.type})
        return self

    @property
    def words(self) -> str:
        return self.text if self.text is not None else self.refusal or ""


def _is_object(arguments: str) -> str:
    try:
        known = read_json(arguments.encode()) if arguments.strip() else {}
    except (BadBody, UnicodeEncodeError) as error:
        raise PydanticCustomError("invalid_value", "{what}", {"what": getattr(error, "detail", str(error))}) from None
    if not isinstance(known, dict):
        raise PydanticCustomError("invalid_value", "the arguments of a call are a JSON object")
    return arguments


class CalledFunction(_Record):
    """A function, and what it is called with, as JSON text."""

    name: str = Field(min_length=1, max_length=256)
    arguments: Annotated[str, AfterValidator(_is_object)]


class ToolCall(_Record):
    """A call that the assistant made."""

    id: str = Field(min_length=1, max_length=256)
    type: Literal["function"] = "function"
    function: CalledFunction
    index: Ignored


class Message(_Record):
    """What somebody said, what the assistant called, or what a tool returned."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | Annotated[list[Part], Field(min_length=1)] | None = None
    name: str | None = Field(None, description="taken, and not looked at")
    tool_calls: list[ToolCall] = Field([], max_length=_MOST_TOOLS)
    tool_call_id: str | None = None
    refusal: str | None = None
    reasoning_content: str | None = Field(None, description="shown to models whose template has a place for it")
    reasoning: str | None = Field(None, description="the same by another name")
    annotations: Ignored
    cache_control: Ignored
    audio: Refused
    function_call: Refused

    @property
    def text(self) -> str:
        """All that was said, in one piece."""
        said = self.content or ""
        return (said if isinstance(said, str) else "".join(part.words for part in said)) + (self.refusal or "")

    @model_validator(mode="after")
    def _is_whole(self) -> Message:
        if self.role != "assistant":
            for name in ("tool_calls", "refusal", "reasoning_content", "reasoning"):
                if getattr(self, name):
                    raise PydanticCustomError("invalid_value", "only the assistant has {name}", {"name": name})
        if (self.tool_call_id is not None) != (self.role == "tool"):
            raise PydanticCustomError("invalid_value", "what a tool returned, and no other, has a tool_call_id")
        if self.content is None and not self.tool_calls and self.refusal is None:
            raise PydanticCustomError("missing_required_parameter", "a message has content")
        return self


class StreamOptions(_Record):
    """What a stream tells besides the answer."""

    include_usage: bool = False
    include_obfuscation: Ignored


class JsonSchema(_Record):
    """A form of an answer."""

    name: str = ""
    description: str | None = None
    schema_: dict[str, Any] = Field(alias="schema", default_factory=dict)
    strict: bool | None = None


class ResponseFormat(_Record):
    """What an answer is: text, some JSON object, or JSON of a form."""

    type: Literal["text", "json_object", "json_schema"] = "text"
    json_schema: JsonSchema | None = None

    @model_validator(mode="after")
    def _has_its_form(self) -> ResponseFormat:
        if (self.type == "json_schema") != (self.json_schema is not None):
            raise _invalid("response_format", "the type json_schema, and no other, has a json_schema")
        return self


class Function(_Record):
    """A function that the model may call. `parameters` is a JSON schema of an object."""

    name: str = Field(pattern="^[a-zA-Z0-9_-]{1,64}$")
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool = False


class Tool(_Record):
    """A tool that the model may call."""

    type: Literal["function"]
    function: Function
    cache_control: Ignored


class NamedFunction(_Record):
    """A function by its name."""

    name: str


class NamedTool(_Record):
    """A tool by its name."""

    type: Literal["function"]
    function: NamedFunction


class AllowedTools(_Record):
    """Some of the tools."""

    mode: Literal["auto", "required"]
    tools: list[NamedTool] = Field(min_length=1, max_length=_MOST_TOOLS)


class AllowedChoice(_Record):
    """That only some of the tools may be called."""

    type: Literal["allowed_tools"]
    allowed_tools: AllowedTools


class _Sampled(_Record):
    """What chats and completions have in common."""

    model: Model
    temperature: float = Field(1.0, ge=0, le=2)
    top_p: float = Field(1.0, gt=0, le=1)
    n: int = Field(1, ge=1, le=_MOST_ANSWERS)
    seed: Seed | None = None
    stop: Stop | Annotated[list[Stop], Field(max_length=_MOST_STOPS)] = Field([], description="empty ones stop nothing")
    stream: bool = False
    stream_options: StreamOptions | None = None
    frequency_penalty: float | None = Field(
        None, ge=-2, le=2, description="taken off a token's logit each time it is said"
    )
    presence_penalty: float | None = Field(
        None, ge=-2, le=2, description="taken off the logit of a token once it is said"
    )
    logit_bias: (
        dict[Annotated[str, Field(pattern=r"^[0-9]{1,9}$")], Annotated[float, Field(ge=-100, le=100)]] | None
    ) = Field(None, max_length=1024, description="added to the logits of these tokens, by their numbers")
    user: Ignored

    @property
    def stops(self) -> tuple[str, ...]:
        return tuple(filter(None, [self.stop] if isinstance(self.stop, str) else self.stop))

    @model_validator(mode="after")
    def _one_stream(self) -> Any:
        if self.stream and self.n > 1:
            raise _invalid("n", "n above 1 cannot be streamed")
        return self


class ChatCompletionRequest(_Sampled):
    """A conversation to go on with."""

    messages: list[Message] = Field(min_length=1, max_length=4096)
    max_tokens: int | None = Field(None, ge=1, le=MOST_TOKENS)
    max_completion_tokens: int | None = Field(None, ge=1, le=MOST_TOKENS)
    logprobs: bool = False
    top_logprobs: int | None = Field(None, ge=0, le=_MOST_TOP)
    response_format: ResponseFormat = ResponseFormat()
    tools: list[Tool] = Field([], max_length=_MOST_TOOLS)
    tool_choice: Literal["none", "auto", "required"] | NamedTool | AllowedChoice = "auto"
    parallel_tool_calls: bool = True
    modalities: list[Literal["text"]] = Field(["text"], min_length=1, max_length=1)
    verbosity: Literal["medium"] = "medium"
    audio: Refused
    functions: Refused
    function_call: Literal["none", "auto"] | None = None
    web_search_options: Refused
    reasoning_effort: Refused
    moderation: Refused
    metadata: Ignored
    prediction: Ignored
    prompt_cache_key: Ignored
    prompt_cache_options: Ignored
    prompt_cache_retention: Ignored
    safety_identifier: Ignored
    service_tier: Ignored
    store: Ignored

    @property
    def offered(self) -> list[Function]:
        """The functions that the model is told of."""
        functions = [] if self.tool_choice == "none" else [tool.function for tool in self.tools]
        if isinstance(self.tool_choice, AllowedChoice):
            names = {tool.function.name for tool in self.tool_choice.allowed_tools.tools}
            return [function for function in functions if function.name in names]
        return functions

    @property
    def required(self) -> list[Function]:
        """Those of which it has to call one; none if it may answer otherwise."""
        if isinstance(self.tool_choice, NamedTool):
            return [one for one in self.offered if one.name == self.tool_choice.function.name]
        allowed = isinstance(self.tool_choice, AllowedChoice) and self.tool_choice.allowed_tools.mode == "required"
        return self.offered if allowed or self.tool_choice == "required" else []

    @model_validator(mode="after")
    def _logprobs_agree(self) -> ChatCompletionRequest:
        if self.top_logprobs is not None and not self.logprobs:
            raise _invalid("top_logprobs", "top_logprobs takes logprobs: true")
        return self

    @model_validator(mode="after")
    def _tools_agree(self) -> ChatCompletionRequest:
        names = [tool.function.name for tool in self.tools]
        if len(set(names)) < len(names):
            raise _invalid("tools", "two tools have one name")
        chosen: list[NamedTool] = []
        if isinstance(self.tool_choice, NamedTool):
            chosen = [self.tool_choice]
        elif isinstance(self.tool_choice, AllowedChoice):
            chosen = self.tool_choice.allowed_tools.tools
        elif self.tool_choice == "required" and not names:
            raise _invalid("tool_choice", "a call is required, and there are no tools")
        if unknown := [tool.function.name for tool in chosen if tool.function.name not in names]:
            raise _invalid("tool_choice", f"there is no tool called {unknown[0]!r:.80}")
        if self.offered and self.response_format.type != "text":
            raise _invalid("response_format", "a form of the answer beside tools is not offered here")
        return self

    @model_validator(mode="after")
    def _calls_are_answered(self) -> ChatCompletionRequest:
        """A call is followed by what the tool returned, and nothing else is returned."""
        waiting: set[str] = set()
        for number, message in enumerate(self.messages):
            param = f"messages.{number}"
            if message.role == "tool":
                if message.tool_call_id not in waiting:
                    raise _invalid(param, "a tool returned what the assistant's turn before it did not call")
                waiting.discard(message.tool_call_id)
                continue
            if waiting:
                raise _invalid(param, "a call before this message has not been answered by a tool")
            waiting = {call.id for call in message.tool_calls}
            if len(waiting) < len(message.tool_calls):
                raise _invalid(param, "two calls have one id")
        if waiting:
            raise _invalid("messages", "the last call has not been answered by a tool")
        return self


class CompletionRequest(_Sampled):
    """A text to go on with, or several, as text or as the ids of tokens."""

    prompt: (
        str
        | Annotated[list[str], Field(min_length=1, max_length=256)]
        | TokenIds
        | Annotated[list[TokenIds], Field(min_length=1, max_length=256)]
    )
    max_tokens: int | None = Field(16, ge=1, le=MOST_TOKENS)
    logprobs: int | None = Field(None, ge=0, le=_MOST_TOP)
    echo: bool = Field(False, description="begin the text with the prompt")
    best_of: int | None = Field(None, description="as many as n")
    suffix: Refused

    @property
    def prompts(self) -> list[str | list[int]]:
        return _listed(self.prompt)

    @model_validator(mode="after")
    def _is_offered(self) -> CompletionRequest:
        if self.stream and len(self.prompts) > 1:
            raise _invalid("prompt", "several prompts cannot be streamed")
        if (answers := len(self.prompts) * self.n) > MOST_ANSWERS:
            raise _invalid(
                "n", f"{answers:,} answers, n to each prompt, are more than the {MOST_ANSWERS} of one request"
            )
        if self.best_of not in (None, self.n):
            raise _invalid("best_of", "best_of other than n is not offered here")
        if self.echo and (self.stream or self.logprobs is not None):
            raise _invalid("echo", "echo is offered for whole answers without logprobs alone")
        return self


class EmbeddingRequest(_Record):
    """Texts to be turned into vectors, as text or as the ids of tokens."""

    model: Model
    input: (
        str
        | Annotated[list[str], Field(min_length=1, max_length=2048)]
        | TokenIds
        | Annotated[list[TokenIds], Field(min_length=1, max_length=2048)]
    )
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: Refused = Field(None, description="not offered: a model has the dimensions that it has")
    user: Ignored

    @property
    def inputs(self) -> list[str | list[int]]:
        return _listed(self.input)


def _listed(given: Any) -> list[str | list[int]]:
    """One text or several, each as text or as ids."""
    return [given] if isinstance(given, str) or isinstance(given[0], int) else list(given)
