"""All conversations rewritten by one rewriter: by workers that hold it, or by a chat model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cache, partial
from typing import Any, NamedTuple

from squadron.core.folder import Folder
from squadron.core.job import estimated
from squadron.core.rows import map_rows
from squadron.core.run import Stage
from squadron.data.rows import store_rows
from squadron.llm.batch.programs import Ask, Program, run_programs
from squadron.llm.chat import ChatReply, ChatRequest
from squadron.methods.rewrite import plan
from squadron.methods.rewrite.algorithm import Answer, Needs, Outcome, Rewriting, rewrite_conversation, run_together
from squadron.methods.rewrite.config import AnyRewriter, ChatRewriter, DriftConfig, FirstTurn, Setting, WorkConfig
from squadron.methods.rewrite.learning import TrainedAmbiguity
from squadron.methods.rewrite.records import REWRITE_TYPES, Conversation, Cost, Logs, Pair, Rewrites, Said
from squadron.methods.rewrite.rewriters import Trained, ask, open_classifier, open_rewriter, read_reply

_TIMEOUT_S = 1800.0


class Told(NamedTuple):
    """What became of a conversation under a chat model, and what that took."""

    outcomes: list[Outcome]
    errors: list[str]
    prompt_tokens: int
    completion_tokens: int
    usd: float
    seconds: list[float]


@estimated(plan.rewriting)
def rewrite_logs(
    stage: Stage,
    logs: Logs,
    rewriter: AnyRewriter,
    settings: tuple[Setting, ...],
    first_turn: FirstTurn,
    drift: DriftConfig,
    work: WorkConfig,
    trained: Trained | None = None,
    ambiguity: TrainedAmbiguity | None = None,
) -> Rewrites:
    """Rewrite all conversations in all settings; some of them once more, disturbed.

    Workers take conversations in batches and go through their turns together. A chat model is asked the turns of one
    conversation after each other, those of different ones at the same time; its answers are kept under the content of
    what was asked. A turn without an answer is a failed row, which the next run asks again.
    """
    conversations = logs.conversations(stage.run.folder)
    jobs = [(setting, conversations) for setting in settings if not setting.disturbed]
    jobs += [(setting, conversations[: drift.conversations]) for setting in settings if setting.disturbed]
    if isinstance(rewriter, ChatRewriter):
        return _by_chat(stage, rewriter, jobs, conversations, first_turn, drift, ambiguity)
    rows = [
        {
            "id": f"{number}-{start}-{len(some)}",
            "setting": setting.model_dump(),
            "conversations": [pack(one) for one in some],
        }
        | {"wrong": [wrong_turn(one, conversations, drift) for one in some] if setting.disturbed else None}
        for number, (setting, found) in enumerate(jobs)
        for start in range(0, len(found), work.batch)
        for some in [found[start : start + work.batch]]
    ]
    answers = map_rows(
        stage, rows, RewriteChunk, unit="batch", timeout_s=_TIMEOUT_S, rewriter=rewriter,
        first_turn=first_turn, run=stage.run.folder, trained=trained, ambiguity=ambiguity,
    )  # fmt: skip
    done = [row for answer in answers for row in answer["rows"]]
    return _store(stage, rewriter.name, done, [_cost(setting, done) for setting, _ in jobs if not setting.disturbed])


class RewriteChunk:
    """Holds a rewriter on a worker."""

    def __init__(
        self, rewriter: Any, first_turn: FirstTurn, run: Folder, trained: Trained | None,
        ambiguity: TrainedAmbiguity | None,
    ) -> None:  # fmt: skip
        self._rewriter, self._first_turn = open_rewriter(rewriter, run, trained), first_turn
        self._classifier = cache(lambda name: open_classifier(name, run, ambiguity))

    def __call__(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """The rewrites of some conversations."""
        setting = Setting(**row["setting"])
        conversations = [unpack(one) for one in row["conversations"]]
        wrongs = row["wrong"] or [None] * len(conversations)
        running = [
            start(one, setting, self._first_turn, wrong) for one, wrong in zip(conversations, wrongs, strict=True)
        ]
        found = run_together(running, self._rewriter.rewrite, self._classifier(setting.classifier))
        pairs = zip(conversations, found, strict=True)
        return {"rows": [one for talk, outcomes in pairs for one in rows_for(setting, talk.key, outcomes)]}


def start(
    conversation: Conversation, setting: Setting, first_turn: FirstTurn, wrong: Sequence[Any] | None = None
) -> Rewriting:
    """The conversation as a generator. `wrong` is a turn's number, rewrite and response."""
    faults = {int(wrong[0]): Pair(str(wrong[1]), str(wrong[2]))} if wrong else None
    return rewrite_conversation(conversation, setting, first_turn, faults)


def wrong_turn(conversation: Conversation, all_of: Sequence[Conversation], drift: DriftConfig) -> list[Any] | None:
    """What is put into a conversation: the turn at the same place of the next one that has it, as its rewrite and its
    response. None where no other one is so long, or this one does not go on after it."""
    if len(conversation.turns) <= drift.at:
        return None
    place = next(number for number, one in enumerate(all_of) if one.key == conversation.key)
    others = [*all_of[place + 1 :], *all_of[:place]]
    found = next((one.turns[drift.at - 1] for one in others if len(one.turns) >= drift.at), None)
    return None if found is None else [drift.at, found.reference or found.query, found.response]


def ask_in_turn(rewriter: ChatRewriter, running: Rewriting, needs: Needs | None = None) -> Program[Told]:
    """A conversation as a program that asks a chat model its turns, one after the other, save those that need no
    rewrite by `needs`."""
    errors, seconds = list[str](), list[float]()
    prompt, completion, usd = 0, 0, 0.0
    try:
        turn = next(running)
        while True:
            if needs is not None and not needs([turn])[0]:
                turn = running.send(Answer(turn.query, asked=False))
                continue
            (reply,) = yield Ask(rewriter.name, (ChatRequest("", ask(rewriter, turn), rewriter.sampling),))
            assert isinstance(reply, ChatReply)
            rewrite = read_reply(reply.text) if reply.ok else ""
            if not rewrite:
                errors.append(f"turn {turn.number}: {reply.error or 'an empty rewrite'}")
            prompt, completion = prompt + reply.prompt_tokens, completion + reply.completion_tokens
            usd += reply.cost_usd
            seconds.append(reply.seconds)
            turn = running.send(Answer(rewrite or None))
    except StopIteration as end:
        return Told(end.value, errors, prompt, completion, usd, seconds)


def rows_for(setting: Setting, conversation: str, outcomes: Sequence[Outcome]) -> Iterator[dict[str, Any]]:
    """Rows of `REWRITE_TYPES`."""
    for one in outcomes:
        yield {**setting.model_dump(), "conversation": conversation, **one._asdict()}


def pack(conversation: Conversation) -> list[Any]:
    """A conversation as JSON, with what rewriting reads."""
    turns = [[said.query, said.response, said.measured] for said in conversation.turns]
    return [conversation.set, conversation.id, turns]


def unpack(values: Sequence[Any]) -> Conversation:
    """A conversation from JSON."""
    turns = tuple(Said(query, response, measured=measured) for query, response, measured in values[2])
    return Conversation(values[0], values[1], turns)


def _by_chat(
    stage: Stage,
    rewriter: ChatRewriter,
    jobs: Sequence[tuple[Setting, Sequence[Conversation]]],
    conversations: Sequence[Conversation],
    first_turn: FirstTurn,
    drift: DriftConfig,
    ambiguity: TrainedAmbiguity | None,
) -> Rewrites:
    classifier = cache(lambda name: open_classifier(name, stage.run.folder, ambiguity))
    programs: dict[str, Any] = {}
    places: dict[str, tuple[Setting, str]] = {}
    for setting, found in jobs:
        for one in found:
            name = f"{one.key}, {setting.label}{', disturbed' if setting.disturbed else ''}"
            wrong = wrong_turn(one, conversations, drift) if setting.disturbed else None
            needs = classifier(setting.classifier)
            programs[name] = partial(_program, rewriter, one, setting, first_turn, wrong, needs)
            places[name] = setting, one.key
    told = run_programs(
        stage, programs, {rewriter.name: rewriter.model}, unit="conversation", timeout_s=rewriter.timeout_s,
        cap_usd=rewriter.cap_usd,
    )  # fmt: skip
    done = [row for name, one in told.items() for row in rows_for(*places[name], one.outcomes)]
    for name, one in told.items():
        for error in one.errors:
            stage.fail(name, error)
    costs = []
    for setting in (setting for setting, _ in jobs if not setting.disturbed):
        some = [one for name, one in told.items() if places[name][0] == setting]
        paid = {
            "prompt_tokens": sum(one.prompt_tokens for one in some), "usd": sum(one.usd for one in some),
            "completion_tokens": sum(one.completion_tokens for one in some),
        }  # fmt: skip
        costs.append(_cost(setting, done).model_copy(update=paid))
    return _store(stage, rewriter.name, done, costs)


def _program(
    rewriter: ChatRewriter, conversation: Conversation, setting: Setting, first_turn: FirstTurn, wrong: Any,
    needs: Needs | None,
) -> Program[Told]:  # fmt: skip
    return ask_in_turn(rewriter, start(conversation, setting, first_turn, wrong), needs)


def _cost(setting: Setting, rows: Sequence[Mapping[str, Any]]) -> Cost:
    own = [row for row in rows if all(row[name] == value for name, value in setting.model_dump().items())]
    return Cost(setting=setting.label, turns=len(own), asked=sum(row["asked"] for row in own))


def _store(stage: Stage, name: str, rows: Sequence[dict[str, Any]], costs: Sequence[Cost]) -> Rewrites:
    return Rewrites(rewriter=name, rows=store_rows(stage, "rewrites.arrow", rows, REWRITE_TYPES), costs=tuple(costs))
