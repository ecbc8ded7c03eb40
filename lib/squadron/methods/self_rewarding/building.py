"""Making data for the first model: solutions split into steps by a chat model, and contests from a tree search that a
process reward model guides and a chat model judges twice. Replies are on record, so that a restart asks for the rest.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import partial
from typing import Any, cast

from squadron.core.errors import InputError
from squadron.core.panels import Table
from squadron.core.run import Stage
from squadron.data.records import Record, check_columns, read_records
from squadron.llm.chat import ChatReply, ChatRequest, Sampling
from squadron.llm.programs import Ask, Program, run_programs
from squadron.llm.reward import Answered, Score
from squadron.methods.self_rewarding import algorithm
from squadron.methods.self_rewarding.config import InstructionConfig, JudgingDataConfig, PromptsConfig
from squadron.methods.self_rewarding.conversations import judge_request, step_of, step_sampling
from squadron.methods.self_rewarding.records import Sources
from squadron.search import Preference, Propose, Tree, TreeSearchConfig, Value, extreme_pairs, search_tree

_ATTEMPTS = 3
"""How often a solution is given to the splitter, which may have changed it."""

Contest = dict[str, Any]


def solutions(stage: Stage, config: InstructionConfig) -> list[dict[str, Any]]:
    """Rows `{question, steps}`. With a splitter, those whose content it changed on every attempt are failed rows."""
    assert config.path is not None
    records = _solved(config)
    if config.splitter is None:
        return [{"question": q, "steps": algorithm.split_steps(solution)} for q, solution in records]
    programs = {
        str(number): partial(split, config.sampling, question, solution)
        for number, (question, solution) in enumerate(records)
    }
    answers = run_programs(stage, programs, {"splitter": config.splitter}, unit="solution")
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


def search(stage: Stage, sources: Sources, config: JudgingDataConfig, prompts: PromptsConfig) -> list[Contest]:
    """Contests between the best and the worst step at each layer of the trees, kept where two judgements with the sides
    swapped and the process reward agree."""
    assert config.policy is not None and config.reward is not None and config.judge is not None
    rows = stage.run.folder.read_lines(sources.training.file)[: config.problems]
    programs = {row["id"]: partial(build_contests, config, prompts, row["id"], row["question"]) for row in rows}
    models = {"policy": config.policy, "reward": config.reward, "judge": config.judge}
    found = run_programs(stage, programs, models, cap_usd=config.cap_usd)
    count: Counter[str] = sum((one[1] for one in found.values()), Counter())
    names = ("kept", "orders disagree", "judge and reward disagree", "no verdict")
    table = [[name, count[name]] for name in names]
    stage.show(Table(title="Judged pairs of the search", columns=["what became of them", "pairs"], rows=table))
    contests = [contest for one in found.values() for contest in one[0]]
    if not contests:
        what = "no pair was kept: " + ", ".join(f"{name} {count[name]:,}" for name in names[1:])
        raise InputError(what, where="judging", fix="look whether the judge and the process reward fit the problems")
    return contests


def build_contests(
    config: JudgingDataConfig, prompts: PromptsConfig, identifier: str, question: str
) -> Program[tuple[list[Contest], Counter[str]]]:
    """Search one problem, judge the extreme pairs, and keep those on which all agree."""
    tree = yield from grow(config.search, config.proposing, prompts, identifier, question)
    kept: list[Contest] = []
    count: Counter[str] = Counter()
    for pair in extreme_pairs(tree):
        orders = ((pair.chosen, pair.rejected), (pair.rejected, pair.chosen))
        asked = [ChatRequest("", judge_request(prompts, question, pair.steps, *o), config.judging) for o in orders]
        replies = yield Ask("judge", tuple(asked))
        said = [cast(ChatReply, reply).text for reply in replies]
        became = agreement([algorithm.read_verdict(text) for text in said])
        count[became] += 1
        if became == "kept":
            kept.append(_contest(question, pair, orders, said))
    return kept, count


def agreement(verdicts: Sequence[algorithm.Verdict | None]) -> str:
    """What becomes of a pair that was judged twice, the better one by process reward shown first, then second."""
    if None in verdicts:
        return "no verdict"
    if verdicts[0] == verdicts[1]:
        return "orders disagree"
    return "kept" if verdicts[0] == "first" else "judge and reward disagree"


def grow(
    config: TreeSearchConfig, proposing: Sampling, prompts: PromptsConfig, identifier: str, question: str
) -> Program[Tree]:
    """The search tree of one problem, its steps by the policy and its values by the process reward model."""
    searching = search_tree(config, algorithm.is_last)
    want = next(searching)
    while True:
        if isinstance(want, Value):
            scores = yield Ask("reward", tuple(Answered("", question, "\n".join(steps)) for steps in want.paths))
            answer: Sequence[Any] = [cast(Score, score).value for score in scores]
        else:
            answer = yield from _propose(want, proposing, prompts, identifier, question)
        try:
            want = searching.send(answer)
        except StopIteration as end:
            tree: Tree = end.value
            return tree


def _propose(
    wants: tuple[Propose, ...], proposing: Sampling, prompts: PromptsConfig, identifier: str, question: str
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
    replies = iter((yield Ask("policy", tuple(requests))))
    return [[step_of(cast(ChatReply, next(replies))) for _ in range(want.count)] for want in wants]


def _contest(question: str, pair: Preference, orders: Sequence[tuple[str, str]], said: Sequence[str]) -> Contest:
    """One of the two orders, by the content of the pair, so that neither side is right more often."""
    shown = algorithm.draw_seed(question, *pair.steps, pair.chosen, pair.rejected) % 2
    first, second = orders[shown]
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
    wanted = {"instruction.question": config.question, "instruction.solution": config.solution}
    rows = []
    for number, record in enumerate(read_records(config.path, config.split)):
        if number == config.limit:
            break
        check_columns(record, wanted)
        rows.append((_text(record, config.question), _text(record, config.solution)))
    if not rows:
        raise InputError("there are no solutions here", where=config.path)
    return rows


def _text(record: Record, column: str) -> str:
    value = record.values[column]
    if not isinstance(value, str) or not value.strip():
        raise InputError(f"the column {column!r} holds no text", where=record.where)
    return value
