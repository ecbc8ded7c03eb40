"""What a chat model is asked that has not been taught to plan."""

from __future__ import annotations

from collections.abc import Sequence

from squadron.methods.mor.records import Asked
from squadron.retrieval.graph import Schema

PLAN_PROMPT = """\
A question is to be answered from a graph. Its nodes are of these types: {types}. They are connected like this:
{relations}

Write a plan as JSON with two keys. "routes" is a list of routes; each is a list of types of nodes, from one that the \
question tells something of, over types that are connected, to the type of the answer, {targets}. "restriction" has \
for each type of which the question tells something a list of what it tells, in the question's own words.

{examples}Question: {query}
Plan:"""


def plan_prompt(one: Asked, schema: Schema, shown: Sequence[Asked]) -> str:
    """The prompt for a question, with other questions and their plans as examples."""
    examples = "".join(f"Question: {other.query}\nPlan: {other.plan}\n\n" for other in shown if other.id != one.id)
    return PLAN_PROMPT.format(
        types=", ".join(schema.types),
        relations="\n".join(schema.describe()),
        targets=" or ".join(one.targets),
        examples=examples,
        query=one.query,
    )
