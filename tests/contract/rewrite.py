"""The contract of the job rewrite."""

from tests.contract.record import Contract, Refused, outputs

LOGS = "logs=[{name: own, path: FILES/c.jsonl}]"
CHAT = "{kind: chat, name: x, prompt: 'say {query}', model: {provider: scripted, name: x, otherwise: y}}"
TALK = {"conversation": "a", "turns": [{"query": "What is it?", "rewrite": "What is tea?"}]}


def refused(said: str, *rows: object) -> Refused:
    """A log of these rows."""
    return Refused(said, [LOGS], {"c.jsonl": list(rows)})


CONTRACT = Contract(
    panels=[
        "What was read", "Recommendation for this data", "All settings", "Strategy by k", "Rewrites against a person",
        "What rewriting takes", "Turns side by side", "Published", "How far one wrong rewrite carries", "What it costs",
        "Time of a turn",
    ],
    half_way="stages/rewrite_logs-*/rows/*.jsonl",
    killed_in="time_turns",
    same=outputs("read_logs", "rewrite_logs", "compare", "show_drift"),
    refused=[
        Refused("did you mean rewriters", ["rewriter=[]"]),
        Refused("more than one is called rule", ["rewriters=[{kind: rule}, {kind: rule}]"]),
        Refused("the prompt has no {history}", [f"rewriters=[{CHAT}]"]),
        Refused("at least one earlier turn", ["ks=[0]"]),
        Refused("no such file", ["logs=[{name: x, path: ./gone.jsonl}]"]),
        refused("c.jsonl:2", TALK, {"conversation": "b", "turns": [{"response": "x"}]}),
        refused("'a' stands for two conversations: first in", TALK, TALK),
        refused("turn 3, where 1 follows", {"conversation": "b", "number": 3, "query": "x"}),
        Refused(
            "no turn is left to measure", ["logs=[{name: own, path: FILES/c.jsonl, use: learn}]"], {"c.jsonl": [TALK]}
        ),
        Refused(
            "names p9, which is no passage",
            ["logs=[{name: own, path: FILES/c.jsonl, passages: FILES/p.jsonl}]"],
            {"c.jsonl": [{"conversation": "a", "turns": [{"query": "x", "passages": ["p9"]}]}],
             "p.jsonl": [{"id": "p1", "text": "y"}]},
        ),
    ],
    spared="stages/rewrite_logs-*/done.json",
    no_effect=["work.batch=3", "rewriters.1.timeout_s=99", "rewriters.1.cap_usd=5"],
    late={
        "world.seed=3": "read_logs",
        "first_turn=asked": "rewrite_logs",
        "ks=[2]": "rewrite_logs",
        "evaluation.shown=3": "compare",
        "latency.turns=2": "time_turns",
    },
)  # fmt: skip
