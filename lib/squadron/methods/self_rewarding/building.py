"""Making data for the first model: solutions split into steps by a chat model, and contests from a tree search that a
process reward model guides and a chat model judges twice. Replies are on record, so that a restart asks for the rest.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

from squadron.core.errors import ConfigError, InputError
from squadron.core.panels import Table
from squadron.core.run import Stage
from squadron.data.records import read_records
from squadron.llm.batch.model_client import check_served
from squadron.llm.batch.programs import Ask, Program, run_programs
from squadron.llm.chat import ChatReply, ChatRequest, Sampling
from squadron.llm.rewards.reward import Answered, Score
from squadron.llm.settings import OpenAiModel
from squadron.methods.self_rewarding import algorithm
from squadron.methods.self_rewarding.config import InstructionConfig, JudgingDataConfig, PromptsConfig
from squadron.methods.self_rewarding.conversations import ask_chat, judge_both, step_of, step_sampling, verdict_of
from squadron.methods.self_rewarding.records import Sources
from squadron.search import Preference, Propose, Tree, TreeSearchConfig, Value, extreme_pairs, search_tree

_ATTEMPTS = 3
"""How often a solution is given to the splitter, which may have changed it."""

Contest = dict[str, Any]


@dataclass(frozen=True)
class Built:
    """The contests of one problem, what became of the pairs that were judged, and why a reply failed if one did."""

    contests: list[Contest]
    pairs: Counter[str]
    error: str = ""


def check(instruction: InstructionConfig, judging: JudgingDataConfig, continues: bool) -> None:
    """See to it before any work starts that every model that data is built by is there, and that the policy continues a
    turn where it `continues` solutions. Raises as `check_served`."""
    for settings in (instruction.splitter, judging.policy, judging.reward, judging.judge):
        if settings is not None:
            check_served(settings)
    if continues and isinstance(judging.policy, OpenAiModel) and not judging.policy.can_continue:
        fix = "take a model that continues its turn, behind vLLM, SGLang, DeepSeek's beta address or Ollama"
        raise ConfigError("the server of judging.policy cannot continue a turn", where=judging.policy.base_url, fix=fix)


def solutions(stage: Stage, config: InstructionConfig, cap_usd: float | None) -> list[dict[str, Any]]:
    """Rows `{question, steps}`. With a splitter, those whose content it changed on every attempt are failed rows."""
    assert config.path is not None
    records = _solved(config)
    if config.splitter is None:
        return [{"question": q, "steps": algorithm.split_steps(solution)} for q, solution in records]
    programs = {
        str(number): partial(split, config.sampling, question, solution)
        for number, (question, solution) in enumerate(records)
    }
    answers = run_programs(stage, programs, {"splitter": config.splitter}, unit="solution", cap_usd=cap_usd)
    rows = []
    for number, (question, _) in enumerate(records):
        steps, error, asked = answers[str(number)]
        if steps:
            rows.append({"question": question, "steps": steps})
        else:
            stage.fail(f"solution {number + 1}", error, retry=not asked)
    if not rows:
        raise InputError("the splitter kept the content of no solution", where="instruction.splitter")
    return rows


def split(sampling: Sampling, question: str, solution: str) -> Program[tuple[tuple[str, ...], str, bool]]:
    """Steps that say what the solution says; else none, why, and whether every attempt was answered."""
    error, answered = "", True
    for attempt in range(_ATTEMPTS):
        drawn = sampling if not attempt else sampling.model_copy(update={"seed": attempt, "temperature": 0.5})
        messages = algorithm.split_messages(question, solution)
        (reply,) = yield Ask("splitter", (ChatRequest("", messages, drawn),))
        reply = cast(ChatReply, reply)
        answered = answered and reply.ok
        steps = algorithm.split_steps(reply.text) if reply.ok else ()
        if steps and algorithm.same_content(solution, steps):
            return steps, "", True
        error = reply.error or f"the splitter changed the solution, on each of {attempt + 1} attempts"
    return (), error, answered


def searched_problems(stage: Stage, sources: Sources, count: int, rounds: int) -> list[dict[str, Any]]:
    """The problems that judgements are searched on: those after the first `rounds`, which the rounds leave alone; where
    they do not suffice, also the last that rounds ask, which is said."""
    lines = sources.training.lines(stage.run.folder)
    rows = (lines[rounds:] + lines[:rounds][::-1])[:count]
    if shared := max(0, len(rows) - len(lines[rounds:])):
        stage.headline("problems searched for judgements that rounds ask, too", f"{shared:,} of {len(rows):,}")
    return rows


def search(
    stage: Stage, sources: Sources, config: JudgingDataConfig, prompts: PromptsConfig, rounds: int
) -> list[Contest]:
    """Contests between the best and the worst step at each layer of the trees, kept where two judgements with the sides
    swapped and the process reward agree. Problems that lack a reply are failed rows, which the next run tries again.
    """
    assert config.policy is not None and config.reward is not None and config.judge is not None
    rows = searched_problems(stage, sources, config.problems, rounds)
    programs = {row["id"]: partial(build_contests, config, prompts, row["id"], row["question"]) for row in rows}
    models = {"policy": config.policy, "reward": config.reward, "judge": config.judge}
    found = run_programs(stage, programs, models, cap_usd=config.cap_usd)
    for name, one in found.items():
        if one.error:
            stage.fail(name, one.error)
    count: Counter[str] = sum((one.pairs for one in found.values()), Counter())
    names = ("kept", "orders disagree", "judge and reward disagree", "no verdict", "no reply")
    table = [[name, count[name]] for name in names]
    stage.show(Table(title="Judged pairs of the search", columns=["what became of them", "pairs"], rows=table))
    contests = [contest for one in found.values() for contest in one.contests]
    if not contests:
        what = "no pair was kept: " + ", ".join(f"{name} {count[name]:,}" for name in names[1:])
        raise InputError(what, where="judging", fix="look whether the judge and the process reward fit the problems")
    return contests


def build_contests(config: JudgingDataConfig, prompts: PromptsConfig, identifier: str, question: str) -> Program[Built]:
    """Search one problem, judge the extreme pairs, and keep those on which all agree."""
    errors: list[str] = []
    tree = yield from grow(config.search, config.proposing, prompts, identifier, question, errors)
    kept: list[Contest] = []
    count: Counter[str] = Counter()
    for pair in extreme_pairs(tree):
        sides = pair.chosen, pair.rejected
        replies = yield from judge_both("judge", prompts, config.judging, question, pair.steps, sides)
        failed = [reply.error for reply in replies if not reply.ok]
        errors += failed
        became = "no reply" if failed else agreement([verdict_of(reply) for reply in replies])
        count[became] += 1
        if became == "kept":
            kept.append(_contest(question, pair, [reply.text for reply in replies]))
    return Built(kept, count, "".join(errors[:1]))


def agreement(verdicts: Sequence[algorithm.Verdict | None]) -> str:
    """What becomes of a pair that was judged twice, the better one by process reward shown first, then second."""
    if None in verdicts:
        return "no verdict"
    if verdicts[0] == verdicts[1]:
        return "orders disagree"
    return "kept" if verdicts[0] == "first" else "judge and reward disagree"


def grow(
    config: TreeSearchConfig,
    proposing: Sampling,
    prompts: PromptsConfig,
    identifier: str,
    question: str,
    errors: list[str],
) -> Program[Tree]:
    """The search tree of one problem, its steps by the policy and its values by the process reward model. Why replies
    failed is added to `errors`; the search goes on without them."""
    searching = search_tree(config, algorithm.is_last)
    want = next(searching)
    while True:
        if isinstance(want, Value):
            asked = tuple(Answered("", question, "\n".join(steps)) for steps in want.paths)
            scores = [cast(Score, score) for score in (yield Ask("reward", asked))]
            errors += [score.error for score in scores if score.error]
            answer: Sequence[Any] = [score.value for score in scores]
        else:
            answer = yield from _propose(want, proposing, prompts, identifier, question, errors)
        try:
            want = searching.send(answer)
        except StopIteration as end:
            tree: Tree = end.value
            return tree


def _propose(
    wants: tuple[Propose, ...],
    proposing: Sampling,
    prompts: PromptsConfig,
    identifier: str,
    question: str,
    errors: list[str],
) -> Program[list[list[str | None]]]:
    requests = [
        ChatRequest(
            "",
            algorithm.step_messages(prompts.solve, question, want.steps),
            step_sampling(proposing, identifier, *want.steps, want.iteration, place),
        )
        for want in wants
        for place in range(want.count)
    ]
    replies = iter((yield from ask_chat("policy", requests, errors)))
    return [[step_of(next(replies)) for _ in range(want.count)] for want in wants]


def _contest(question: str, pair: Preference, said: Sequence[str]) -> Contest:
    """One of the two orders, by the content of the pair, so that neither side is right more often. `said` holds the
    judgement with the chosen side shown first, and the one with it second."""
    shown = algorithm.draw_seed(question, *pair.steps, pair.chosen, pair.rejected) % 2
    first, second = (pair.chosen, pair.rejected) if shown == 0 else (pair.rejected, pair.chosen)
    return {
        "question": question,
        "steps": pair.steps,
        "first": first,
        "second": second,
        "judgement": said[shown],
        "better": "AB"[shown],
    }


def _solved(config: InstructionConfig) -> list[tuple[str, str]]:
    assert config.path is not None
    rows = []
    for number, record in enumerate(read_records(config.path, config.split, config.subset)):
        if number == config.limit:
            break
        question = record.text(config.question, "instruction.question", blank=False)
        rows.append((question, record.text(config.solution, "instruction.solution", blank=False)))
    if not rows:
        raise InputError("there are no solutions here", where=config.path)
    return rows
