"""The contract of the job mor."""

from tests.contract.record import Contract, Refused, outputs

FILES = "graph={nodes: FILES/n.jsonl, edges: FILES/e.jsonl, questions: FILES/q.jsonl}"
NODES = [{"id": name, "type": "paper", "name": name, "text": f"text of {name}"} for name in "abcd"]
EDGES = [{"source": "a", "relation": "cites", "target": "b"}]
QUESTIONS = [{"id": f"q{n}", "query": "text of a", "answers": ["a"]} for n in range(12)]


def refused(
    said: str, nodes: list[object] = NODES, edges: list[object] = EDGES, questions: list[object] = QUESTIONS  # type: ignore[assignment]
) -> Refused:  # fmt: skip
    """A graph of these nodes and edges, and these questions."""
    return Refused(said, [FILES], {"n.jsonl": nodes, "e.jsonl": edges, "q.jsonl": questions})


CONTRACT = Contract(
    panels=[
        "Nodes of the graph", "What is connected", "Questions", "Candidates by", "Answers found",
        "Hit@1 by kind of question", "What MoR", "Training loss of the reranker", "The first answer is right",
    ],
    half_way="stages/search_graph-*/rows/*.jsonl",
    killed_in="search_graph",
    same=outputs(
        "plan_questions", "rank_by_words", "rank_by_vectors", "rank_structure", "rank_mixed", "rerank", "compare"
    ),
    refused=[
        Refused("did you mean planners", ["planner=[]"]),
        Refused("more than one planner is called", ["planners=[{kind: given}, {kind: given}]"]),
        Refused("leave nothing to test by", ["split={train: 0.8, validation: 0.2}"]),
        Refused("no such file", ["graph={nodes: ./gone.jsonl, edges: ./gone.jsonl, questions: ./gone.jsonl}"]),
        refused("n.jsonl:5", [*NODES, {"id": "e", "type": "paper", "name": "e"}]),
        refused("n.jsonl:5", [*NODES, NODES[0]]),
        refused("e.jsonl:2", edges=[*EDGES, {"source": "a", "relation": "cites", "target": "z"}]),
        refused("q.jsonl:13", questions=[*QUESTIONS, {"id": "r", "query": "x", "answers": ["z"]}]),
        refused("q.jsonl:13", questions=[*QUESTIONS, QUESTIONS[0]]),
        refused("no question is left for", questions=QUESTIONS[:1]),
        refused("no training question has a plan"),
    ],
    spared="stages/train_planner-*/done.json",
    no_effect=["planners.0.batch_size=7", "evaluation.shown=1", "reranker.training.checkpoint.every=1"],
    late={
        "world.seed=3": "read_knowledge",
        "split.seed=3": "read_knowledge",
        "traversal.top=7": "rank_by_words",
        "planners.1.examples=0": "plan_questions",
        "reranker.negatives=5": "train_reranker",
    },
)  # fmt: skip
