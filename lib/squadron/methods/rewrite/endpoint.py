"""A rewriter behind `POST /v1/rewrite`, which keeps conversations by their ids, each client's for itself."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from squadron.core.config import Config
from squadron.core.errors import InputError, ResourceError
from squadron.core.folder import Folder
from squadron.core.profile import WorkerResources
from squadron.core.run_reader import outputs, settings
from squadron.core.work import current
from squadron.methods.rewrite.algorithm import answers, context
from squadron.methods.rewrite.config import (
    AnyRewriter,
    ChatRewriter,
    FirstTurn,
    RewriteConfig,
    Strategy,
    is_trained,
)
from squadron.methods.rewrite.learning import TrainedAmbiguity, TrainedSeq2Seq, TrainedTagger
from squadron.methods.rewrite.records import Compared, Turn
from squadron.methods.rewrite.rewriters import Rewriter, Trained, ask, open_classifier, open_rewriter, read_reply
from squadron.serve import costs
from squadron.serve.service import Route, Service, Services
from squadron.serve.sessions import Session, SessionLimits, Sessions, open_sessions

LEARNED: dict[str, tuple[str, type[TrainedTagger] | type[TrainedSeq2Seq]]] = {
    "tagger": ("learn_tagger", TrainedTagger), "seq2seq": ("learn_small_model", TrainedSeq2Seq),
}  # fmt: skip
_PARALLEL = 8
Name = Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[\w.:-]+$")]
EXAMPLE = {"query": "Show me monthly revenue by country."}


class RewriteRequest(Config):
    """The next query of a conversation."""

    model: str = Field(min_length=1, max_length=512)
    query: str = Field(min_length=1, max_length=8192, pattern=r"\S")
    conversation: Name | None = Field(None, description="its id, as the first answer had it; null: a new one")
    response: str = Field("", max_length=32_768, description="what was answered to the query before, for Rewrite")
    turn: int | None = Field(
        None,
        ge=1,
        description="the query's number, from 1: asked again, it takes the place of the same; null: the next",
    )


class RewriteAnswer(Config):
    """The query as one that stands by itself. `asked` is false where it passed as it was; `shown` earlier turns were
    shown to the rewriter."""

    model: str
    conversation: str
    turn: int
    rewrite: str
    asked: bool
    shown: int


def services(folder: Folder) -> Services:
    """The rewriter that a run recommends, in its setting, under the name of the run's folder. Raises InputError if the
    run has not come so far, or its data speaks for no rewriter."""
    compared = outputs(folder, "compare", Compared)[-1]
    config = settings(folder, RewriteConfig)
    method = next(one for one in compared.methods if one.name == compared.recommended)
    rewriter = next((one for one in config.rewriters if one.name == method.rewriter), None)
    if rewriter is None:
        fix = "serve the queries as they are, or add rewriters to the run"
        raise InputError("no rewriter was better than the last query", where=str(folder), fix=fix)
    strategy: Strategy = "fusion" if method.strategy == "fusion" else "rewrite"
    trained: Trained | None = None
    if is_trained(rewriter):
        learners = [one for one in config.rewriters if one.kind == rewriter.kind and is_trained(one)]
        stage, kind = LEARNED[rewriter.kind]
        trained = outputs(folder, stage, kind)[learners.index(rewriter)]
    ambiguity = outputs(folder, "learn_ambiguity", TrainedAmbiguity)[-1] if method.classifier == "trained" else None
    load = Load(
        folder, rewriter, strategy, method.k, method.classifier, config.first_turn, trained=trained, ambiguity=ambiguity
    )
    most = rewriter.sampling.max_tokens if isinstance(rewriter, ChatRewriter) else 0
    route = Route(
        "/v1/rewrite", "rewrite", RewriteRequest, RewriteAnswer, f"Rewrite a query of a conversation: {method.name}",
        example=EXAMPLE, work=lambda request: 1 + len(request.query + request.response) // costs.PASS,
        tokens=lambda request: costs.tokens_of([request.query, request.response]) + most,
    )  # fmt: skip
    unit = f"queries, each {costs.PASS:,} characters counted as one more"
    return Services(
        (Service(folder.name, load, (route,), WorkerResources(), _PARALLEL, 64, unit, models=(folder.name,)),)
    )


@dataclass(frozen=True)
class Load:
    """What a replica loads."""

    folder: Folder
    rewriter: AnyRewriter
    strategy: Strategy
    k: int
    classifier: str
    first_turn: FirstTurn
    trained: Trained | None = None
    ambiguity: TrainedAmbiguity | None = None

    def __call__(self) -> RewriteServer:
        sessions = open_sessions(self.folder.name, SessionLimits(items=self.k + 1))
        if isinstance(self.rewriter, ChatRewriter):
            return RewriteServer(self, ByChat(self.rewriter), sessions)
        return RewriteServer(self, open_rewriter(self.rewriter, self.folder, self.trained), sessions)


class RewriteServer:
    """A rewriter that answers requests. It keeps of a conversation what it is shown: the last k turns, and one more,
    so that the last can be asked again."""

    def __init__(self, load: Load, rewriter: Rewriter, sessions: Sessions) -> None:
        self._load, self._rewriter, self._sessions = load, rewriter, sessions
        self._needs = open_classifier(load.classifier, load.folder, load.ambiguity)

    def rewrite(self, request: RewriteRequest) -> RewriteAnswer:
        """The rewrite of the next query, or of the last one once more.

        Raises InputError for a turn that is not the next one, and where another request of this conversation came in
        between; ResourceError if a chat model does not answer.
        """
        client, name = current().client, request.conversation or secrets.token_hex(16)
        session = self._sessions.read(client, name)
        number = request.turn or session.length + 1
        if number > session.length + 1 or number < session.length:
            what = f"turn: {number} of a conversation of which {session.length} are known"
            raise InputError(what, where="turn", fix="begin a new conversation, or leave turn out")
        items = list(session.items[:-1] if number == session.length else session.items)
        if items and request.response:
            items[-1] = (*items[-1][:2], request.response)
        outputs = [item[1] if self._load.strategy == "fusion" else item[2] for item in items]
        shown = context([item[0] for item in items], outputs, self._load.k)
        turn = Turn(name, number, shown, request.query)
        text, asked = request.query, False
        if shown or self._load.first_turn == "asked":
            (answer,) = answers([turn], self._rewriter.rewrite, self._needs)
            text, asked = answer.text or request.query, answer.asked
        kept = Session(number, (*items, (request.query, text, "")))
        if not self._sessions.put(client, name, kept, session.length):
            fix = "send the turns of a conversation one after the other"
            raise InputError("conversation: another of its turns came in between", where="conversation", fix=fix)
        return RewriteAnswer(
            model=request.model, conversation=name, turn=number, rewrite=text, asked=asked, shown=len(shown)
        )


class ByChat:
    """A chat model as a rewriter."""

    def __init__(self, settings: ChatRewriter) -> None:
        from squadron.llm.providers import open_model

        self._settings, self._model = settings, open_model(settings.model)

    def rewrite(self, turns: Sequence[Turn]) -> list[str]:
        """A rewrite for each. Raises ResourceError if one has none."""
        from squadron.llm.chat import ChatRequest

        requests = [
            ChatRequest(str(place), ask(self._settings, turn), self._settings.sampling)
            for place, turn in enumerate(turns)
        ]
        replies = {reply.key: reply for reply in self._model.chat(requests)}
        if failed := next((reply for reply in replies.values() if not reply.ok), None):
            raise ResourceError(f"the model did not answer: {failed.error}", fix="send the same request again")
        return [read_reply(replies[request.key].text) for request in requests]
