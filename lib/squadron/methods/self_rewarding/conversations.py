"""What a model is asked in a self-rewarding run, as programs for `squadron.llm.batch.programs`: solve, judge, search.

A search knows nothing of prompts, and a model nothing of searches: here each proposal and each contest of a search
becomes one conversation, and its reply a step or a verdict.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast

from squadron.core.run import Stage
from squadron.llm.batch.programs import Ask, Program
from squadron.llm.chat import ChatReply, ChatRequest, Message, Sampling
from squadron.methods.self_rewarding import algorithm
from squadron.methods.self_rewarding.config import PromptsConfig
from squadron.search import Compare, Found, Propose, StepSearchConfig, search_steps

MODEL, JUDGE = "model", "judge"
"""What programs call the model of the round, and another that judges in its place if there is one."""


@dataclass(frozen=True)
class Searched:
    """What a search found, how long its replies took the model, and how many were of no use. `error` says why a reply
    failed, if one did: the search went on without it."""

    found: Found
    proposing_s: float
    judging_s: float
    cut_off: int
    unreadable: int
    error: str = ""

    @property
    def answer(self) -> str | None:
        """The step that the solution ends with; None if the search did not come to its end."""
        return self.found.steps[-1] if self.found.ended == "finished" else None

    @property
    def length(self) -> int:
        """How many steps were found."""
        return len(self.found.steps)


@dataclass(frozen=True)
class Judged:
    """The verdict on a pair as it is shown, and with its sides swapped; `error` says why a reply failed, if one did."""

    shown: algorithm.Verdict | None
    swapped: algorithm.Verdict | None
    error: str = ""


@dataclass(frozen=True)
class Searcher:
    """How a problem is searched: the same for all problems of a round."""

    prompts: PromptsConfig
    search: StepSearchConfig
    proposing: Sampling
    judging: Sampling
    seed: int
    judge: str = MODEL

    def __call__(self, identifier: str, question: str) -> Program[Searched]:
        """The program that searches one problem. Draws are a function of seed, problem, iteration and place alone."""
        searching = search_steps(self.search, algorithm.is_last)
        want: Propose | Compare = next(searching)
        proposing_s = judging_s = 0.0
        cut_off = unreadable = 0
        errors: list[str] = []
        while True:
            asked = MODEL if isinstance(want, Propose) else self.judge
            replies = yield from ask_chat(asked, self._requests(want, identifier, question), errors)
            seconds = sum(reply.seconds for reply in replies)
            answers = [_read(want, reply) for reply in replies]
            useless = sum(answer is None and reply.ok for answer, reply in zip(answers, replies, strict=True))
            if isinstance(want, Propose):
                proposing_s, cut_off = proposing_s + seconds, cut_off + useless
            else:
                judging_s, unreadable = judging_s + seconds, unreadable + useless
            try:
                want = searching.send(answers)
            except StopIteration as end:
                return Searched(end.value, proposing_s, judging_s, cut_off, unreadable, "".join(errors[:1]))

    def _requests(self, want: Propose | Compare, identifier: str, question: str) -> list[ChatRequest]:
        if isinstance(want, Compare):
            return [
                ChatRequest("", judge_messages(self.prompts, question, want.steps, *pair), self.judging)
                for pair in want.contests
            ]
        messages = algorithm.step_messages(self.prompts.solve, question, want.steps)
        return [
            ChatRequest("", messages, step_sampling(self.proposing, self.seed, identifier, want.iteration, place))
            for place in range(want.count)
        ]


class Erring(Protocol):
    """What became of a problem, and why a reply failed, if one did."""

    @property
    def error(self) -> str: ...


def fail_searches(stage: Stage, searched: Mapping[str, Erring]) -> None:
    """Keep searches that lack a reply as failed rows: the next run asks for it again, and goes on from there."""
    for name, one in searched.items():
        if one.error:
            stage.fail(name, one.error)


def solve(prompts: PromptsConfig, sampling: Sampling, question: str) -> Program[ChatReply]:
    """One whole solution."""
    (reply,) = yield Ask(MODEL, (ChatRequest("", algorithm.solve_messages(prompts.solve, question), sampling),))
    return cast(ChatReply, reply)


def judge_both(
    model: str, prompts: PromptsConfig, sampling: Sampling, question: str, steps: Sequence[str], pair: tuple[str, str]
) -> Program[list[ChatReply]]:
    """The judgement of a pair of next steps as it is shown, and with the sides swapped."""
    shown = (judge_messages(prompts, question, steps, *order) for order in (pair, pair[::-1]))
    replies = yield Ask(model, tuple(ChatRequest("", messages, sampling) for messages in shown))
    return [cast(ChatReply, reply) for reply in replies]


def judge_pair(
    model: str, prompts: PromptsConfig, sampling: Sampling, question: str, steps: Sequence[str], pair: tuple[str, str]
) -> Program[Judged]:
    """Which of a pair of next steps is better, asked in both orders."""
    replies = yield from judge_both(model, prompts, sampling, question, steps, pair)
    error = next((reply.error for reply in replies if not reply.ok), "")
    return Judged(verdict_of(replies[0]), verdict_of(replies[1]), error)


def ask_chat(model: str, requests: Sequence[ChatRequest], errors: list[str]) -> Program[list[ChatReply]]:
    """The replies of a chat model; why those failed that did is added to `errors`."""
    replies = [cast(ChatReply, reply) for reply in (yield Ask(model, tuple(requests)))]
    errors += [reply.error for reply in replies if not reply.ok]
    return replies


def judge_messages(
    prompts: PromptsConfig, question: str, steps: Sequence[str], first: str, second: str
) -> tuple[Message, ...]:
    """The conversation of one contest, in the words of a run."""
    return algorithm.judge_messages(prompts.judge, question, steps, first, second, prompts.no_steps)


def lesson_messages(prompts: PromptsConfig, row: Mapping[str, Any]) -> tuple[Message, ...]:
    """What a row of evaluation data asks: the score of a solution, or which of two next steps is better."""
    if "solution" in row:
        return algorithm.score_messages(prompts.score, row["question"], row["solution"])
    return judge_messages(prompts, row["question"], row["steps"], row["first"], row["second"])


def step_sampling(sampling: Sampling, *drawn_for: object) -> Sampling:
    """Settings that end with the line, under a seed of its own."""
    stop = sampling.stop or ("\n",)
    return sampling.model_copy(update={"stop": stop, "seed": algorithm.draw_seed(*drawn_for)})


def step_of(reply: ChatReply) -> str | None:
    """The step that a reply proposes; None if it failed or was cut off before the step ended."""
    return algorithm.read_step(reply.text) if reply.ok and reply.finish_reason == "stop" else None


def verdict_of(reply: ChatReply) -> algorithm.Verdict | None:
    """The verdict that a reply gives; None if it failed or gives none."""
    return algorithm.read_verdict(reply.text) if reply.ok else None


def _read(want: Propose | Compare, reply: ChatReply) -> str | None:
    return step_of(reply) if isinstance(want, Propose) else verdict_of(reply)
