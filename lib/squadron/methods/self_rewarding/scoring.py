"""What a model is asked where whole solutions are rewarded, as programs for `squadron.llm.batch.programs`: propose some
solutions of a problem, and score each by the mean of several judgements.

Self-Rewarding Language Models, Yuan et al. 2024, arXiv 2401.10020: the baseline of process-based self-rewarding.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from operator import itemgetter

from squadron.llm.batch.programs import Program
from squadron.llm.chat import ChatReply, ChatRequest
from squadron.methods.self_rewarding import algorithm
from squadron.methods.self_rewarding.config import JudgementsConfig, PromptsConfig, ScoringConfig
from squadron.methods.self_rewarding.conversations import MODEL, Judged, ask_chat
from squadron.search.steps import best_and_worst


@dataclass(frozen=True)
class Scored:
    """The solutions that were proposed for a problem, None for one that is of no use, the judgements of each, how long
    its replies took the model, and how many were cut off. `error` says why a reply failed, if one did."""

    solutions: tuple[str | None, ...]
    judgements: tuple[tuple[float | None, ...], ...]
    proposing_s: float
    judging_s: float
    cut_off: int
    unreadable: int
    error: str = ""

    @property
    def scores(self) -> tuple[float | None, ...]:
        """The score of each solution: the mean of the judgements that gave one."""
        return tuple(map(algorithm.mean_score, self.judgements))

    @property
    def pair(self) -> tuple[str, str] | None:
        """The solutions with the highest and the lowest score, the first among equals; None if all scores are equal."""
        if (places := best_and_worst(self.scores)) is None:
            return None
        best, worst = (self.solutions[place] for place in places)
        assert best is not None and worst is not None  # those without a text have no score
        return best, worst

    @property
    def judged(self) -> int:
        """How many judgements there were: equal solutions share theirs."""
        return sum(map(len, dict(zip(self.solutions, self.judgements, strict=True)).values()))

    @property
    def answer(self) -> str | None:
        """The solution with the highest score, the first among equals; None if none has a score."""
        found = [(score, text) for score, text in zip(self.scores, self.solutions, strict=True) if score is not None]
        return max(found, key=itemgetter(0))[1] if found else None

    @property
    def length(self) -> int:
        """How many steps that solution has."""
        return algorithm.number_of_steps(self.answer or "")


@dataclass(frozen=True)
class Scorer:
    """How the solutions of a problem are proposed and scored: the same for all problems of a round."""

    prompts: PromptsConfig
    config: ScoringConfig
    seed: int
    judge: str = MODEL

    def __call__(self, identifier: str, question: str) -> Program[Scored]:
        """The program of one problem. Draws are a function of seed, problem, text and number alone: equal solutions
        have equal judgements, and their order is of no account."""
        errors: list[str] = []
        replies = yield from propose_solutions(
            MODEL, self.prompts, self.config, self.seed, identifier, question, errors
        )
        solutions = tuple(map(solution_of, replies))
        texts = list(dict.fromkeys(text for text in solutions if text is not None))
        judged = yield from judge_solutions(self.judge, self.prompts, self.config, self.seed, question, texts, errors)
        points = {text: tuple(map(score_of, said)) for text, said in zip(texts, judged, strict=True)}
        told = [reply for said in judged for reply in said]
        return Scored(
            solutions,
            tuple(points[text] if text is not None else () for text in solutions),
            sum(reply.seconds for reply in replies),
            sum(reply.seconds for reply in told),
            sum(reply.ok and text is None for reply, text in zip(replies, solutions, strict=True)),
            sum(reply.ok and score_of(reply) is None for reply in told),
            "".join(errors[:1]),
        )


def propose_solutions(
    model: str,
    prompts: PromptsConfig,
    config: ScoringConfig,
    seed: int,
    identifier: str,
    question: str,
    errors: list[str],
) -> Program[list[ChatReply]]:
    """Whole solutions of a problem, each drawn under a seed of its own; why replies failed is added to `errors`."""
    messages = algorithm.solve_messages(prompts.solve, question)
    seeds = (algorithm.draw_seed(seed, identifier, "solution", place) for place in range(config.candidates))
    drawn = (config.proposing.model_copy(update={"seed": one}) for one in seeds)
    return (yield from ask_chat(model, [ChatRequest("", messages, sampling) for sampling in drawn], errors))


def judge_solutions(
    model: str,
    prompts: PromptsConfig,
    config: JudgementsConfig,
    seed: int,
    question: str,
    solutions: Sequence[str],
    errors: list[str],
) -> Program[list[list[ChatReply]]]:
    """The judgements of each solution, `config.judgements` of them; why replies failed is added to `errors`."""
    if not solutions:
        return []
    requests = [
        ChatRequest(
            "",
            algorithm.score_messages(prompts.score, question, text),
            config.judging.model_copy(update={"seed": algorithm.draw_seed(seed, question, text, number)}),
        )
        for text in solutions
        for number in range(config.judgements)
    ]
    replies = iter((yield from ask_chat(model, requests, errors)))
    return [list(itertools.islice(replies, config.judgements)) for _ in solutions]


def score_both(
    model: str, prompts: PromptsConfig, config: JudgementsConfig, question: str, pair: tuple[str, str]
) -> Program[Judged]:
    """Which of two solutions has the higher score. Each is scored by itself: swapping the sides swaps the verdict."""
    errors: list[str] = []
    judged = yield from judge_solutions(model, prompts, config, 0, question, pair, errors)
    scores = [algorithm.mean_score([score_of(reply) for reply in said]) for said in judged]
    return Judged(algorithm.higher(scores), algorithm.higher(scores[::-1]), "".join(errors[:1]))


def solution_of(reply: ChatReply) -> str | None:
    """The solution that a reply holds; None if it failed, says nothing or was cut off."""
    return (reply.text.strip() or None) if reply.ok and reply.finish_reason == "stop" else None


def score_of(reply: ChatReply) -> float | None:
    """The score that a reply gives; None if it failed or gives none."""
    return algorithm.read_score(reply.text) if reply.ok else None
