"""The Reasoner: a chat model that is asked about situations."""

from __future__ import annotations

from collections.abc import Sequence

from squadron.llm.chat import ChatModel, ChatRequest, Closing, Sampling, user
from squadron.llm.parsing import Unreadable
from squadron.methods.actor_reasoner.prompts import Situation, Thought, careful, question, read_thought


class Reasoner(Closing):
    """Thinks about situations by a chat model, as many at a time as it is given. `with` lets go of the model."""

    def __init__(self, model: ChatModel, template: str, sampling: Sampling, words: int) -> None:
        self._model, self._template, self._sampling, self._words = model, template, sampling, words

    def think(self, situations: Sequence[Situation]) -> list[Thought]:
        """A thought about each situation, in their order; the careful one, with the reason in `error`, where the model
        gave none that can be read. Raises ModelUnavailable if the model is not there at all."""
        asked = [question(situation, self._template, self._words) for situation in situations]
        places: dict[str, int] = {}
        for text in asked:
            places.setdefault(text, len(places))  # equal situations are asked about once
        requests = (ChatRequest(str(place), user(text), self._sampling) for text, place in places.items())
        thoughts = {int(reply.key): self._read(reply.text, reply.error) for reply in self._model.chat(requests)}
        return [thoughts[places[text]] for text in asked]

    def close(self) -> None:
        self._model.close()

    def _read(self, text: str, error: str) -> Thought:
        if error:
            return careful(error)
        try:
            return read_thought(text, self._words)
        except Unreadable as unreadable:
            return careful(str(unreadable), text)
