"""What is asked of a server besides the conversation, and what a server teaches by refusing it.

Models behind one protocol take different parameters: those that reason first want `max_completion_tokens` and no
temperature. A refusal names what it is about; it is learned once, and the request sent again without.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from squadron.llm.chat import Sampling

LEARNED = ("max_tokens", "temperature", "top_p", "seed", "stop")
"""Parameters that a model may not take. Others, such as those that continue a turn, cannot be done without."""
_REFUSED = re.compile(
    r"unsupported|not support|unrecognized|unknown|not permitted|not allowed|unexpected|deprecated|extra inputs"
    r"|only the default",
    re.IGNORECASE,
)


class Parameters:
    """The parameters that one model takes, as far as is known. Shared by all requests of a client."""

    def __init__(self, drop: tuple[str, ...] = (), limit: str = "max_tokens", extra: Mapping[str, Any] | None = None):
        self.dropped, self.limit, self._extra = set(drop), limit, dict(extra or {})

    def of(self, sampling: Sampling) -> dict[str, Any]:
        """The fields of a body. What every server takes for granted is left out; its own `max_tokens` and `temperature`
        are not ours."""
        fields: dict[str, Any] = {self.limit: sampling.max_tokens, "temperature": sampling.temperature}
        if sampling.top_p < 1:
            fields["top_p"] = sampling.top_p
        if sampling.seed is not None:
            fields["seed"] = sampling.seed
        if sampling.stop:
            fields["stop"] = list(sampling.stop)
        return {name: value for name, value in fields.items() if name not in self.dropped} | self._extra

    def learn(self, body: Mapping[str, Any], error: Any) -> bool:
        """Whether a body that was refused can be sent again, in another form, by what the server says."""
        name = refused_parameter(body, error)
        if name is None:
            return False
        if name == "max_tokens":
            self.limit = "max_completion_tokens"
        else:
            self.dropped.add(name)
        return True

    def amend(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """A body in the form that is known by now."""
        amended = {name: value for name, value in body.items() if name not in self.dropped}
        if self.limit != "max_tokens" and "max_tokens" in amended:
            amended[self.limit] = amended.pop("max_tokens")
        return amended

    def left_out(self, sampling: Sampling) -> str:
        """What of the sampling the model was not told, for the record; empty if nothing."""
        told = sampling.model_dump(mode="json", exclude_defaults=True) | {"temperature": sampling.temperature}
        missing = [f"{name} {told[name]}" for name in LEARNED if name in self.dropped - {"stop"} and name in told]
        return f"the model does not take {', '.join(missing)}" if missing else ""


def refused_parameter(body: Mapping[str, Any], error: Any) -> str | None:
    """The parameter in a body that a server's error says it does not take; None if it says nothing of the kind.

    `error` is the JSON of the answer: OpenAI's and Azure's `{"error": {"message", "param", "code"}}`, or vLLM's flat
    form, or `{"detail": …}`.
    """
    told = error.get("error", error) if isinstance(error, Mapping) else error
    said = told if isinstance(told, Mapping) else {"message": str(told)}
    message = str(said.get("message") or said.get("detail") or json.dumps(said, default=str))
    code = str(said.get("code") or "")
    if code == "invalid_value" or not (code.startswith("unsupported") or _REFUSED.search(message)):
        return None
    named = said.get("param")
    if named is None:
        words = set(re.findall(r"\w+", message))
        named = next((name for name in LEARNED if name in words), None)
    return named if named in LEARNED and named in body else None
