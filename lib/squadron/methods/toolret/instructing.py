"""Instructions by a chat model: it is shown a query, the tools that answer it, and examples."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from squadron.core.run import Stage
from squadron.data.clustering import hash_ids
from squadron.methods.toolret.learning_config import InstructionsConfig
from squadron.retrieval.documents import Query

SEEDS = (
    ("Is it going to rain in Oslo at the weekend?", "Given a question about the weather, retrieve tools that forecast "
     "the weather of a place by its name and a date."),
    ("Turn this recording of our meeting into text, and mail it to the team.", "Given a task on recorded speech, "
     "retrieve tools that transcribe audio files, and tools that send messages to several people."),
    ("How much is 250 euro in yen today?", "Given amounts of money, retrieve tools that convert currencies at the rate "
     "of a day."),
    ("Find me a quiet flat with two rooms near the station.", "Given wishes for a home, retrieve tools that search "
     "offers of flats and houses by place, size and surroundings."),
)  # fmt: skip
"""Examples where no query brings an instruction."""
PROMPT = """\
An instruction tells a search engine which tools a task needs. In one sentence it says what the tools do and what they \
take in. It fits the task and the tools, names none of the tools, and does not solve the task.

{examples}Task: {query}
Tools:
{tools}
Instruction:"""


def generate_instructions(
    stage: Stage,
    drawn: Sequence[Query],
    known: Sequence[Query],
    texts: Mapping[str, str],
    config: InstructionsConfig,
) -> list[str | None]:
    """An instruction for each of the queries `drawn`: its own, or the model's, which is shown examples among those
    `known`. None where there is none; one that the model failed to give is a failed row of the stage."""
    if config.model is None:
        return [query.instruction for query in drawn]
    from squadron.data.rows import ArrowRows, write_rows
    from squadron.llm.batch.collect import QUESTION_TYPES, collect, read_answers

    seeds = [(one.text, one.instruction) for one in known if one.instruction] or list(SEEDS)
    asked = [
        {"id": query.id, "instruction": write_question(query, texts, seeds, config.examples, config.max_characters)}
        for query in drawn
    ]
    write_rows(stage.folder, "asked.arrow", asked, QUESTION_TYPES)
    (answers,) = collect(stage, ArrowRows(stage.folder, ["asked.arrow"]), [config.model], config.collect)
    found: list[str | None] = []
    for query, row in zip(drawn, read_answers(stage.run.folder, answers), strict=True):
        text = read_instruction(row["response"] or "", config.max_characters)
        if text is None and not row["error"]:
            stage.fail(query.id, f"no instruction: {str(row['response'])[:80]!r}")
        found.append(text)
    if missing := found.count(None):
        stage.headline("queries without an instruction yet", f"{missing:,} of {len(found):,}")
    return found


def write_question(
    query: Query, texts: Mapping[str, str], seeds: Sequence[tuple[str, str]], examples: int, characters: int
) -> str:
    """What the model is asked. Which examples it is shown depends on the query alone."""
    others = [seed for seed in seeds if seed[0] != query.text]
    order = hash_ids([text for text, _ in others], f"{query.id} ").argsort(kind="stable")[:examples]
    shown = "".join(f"Task: {others[n][0]}\nInstruction: {others[n][1]}\n\n" for n in order)
    tools = "\n".join(f"- {texts[name][:characters]}" for name in query.relevant)
    return PROMPT.format(examples=shown, query=query.text, tools=tools)


def read_instruction(reply: str, most: int) -> str | None:
    """The instruction of a reply: its first line with words, without marks about it. None if it is empty or long."""
    lines = (re.sub(r"^[\s*_#]*Instruction[\s*_]*:", "", line).strip(" *\"'`") for line in reply.splitlines())
    first = next((line for line in lines if line), "")
    return first if 0 < len(first) <= most else None
