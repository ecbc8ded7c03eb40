"""The contract of the job hot."""

from tests.contract.record import Contract, Refused, outputs

TASK = "{name: own, items: {path: FILES/q.jsonl, kind: number}, demonstrations: {path: FILES/d.jsonl}}"
QUESTIONS = [{"question": "Ann has 5 pens. Ann gets 3. How many?", "answer": "8"}]
SHOWN = [{"question": "Bo has 2 hats. How many?", "highlighted": "Bo has <fact1>2 hats</fact1>. How many?",
          "answer": "<fact1>2</fact1>. The answer is {2}."}]  # fmt: skip
LEAK = [SHOWN[0] | {"question": "Ann has 5 pens; Ann gets 3: how many"}]


def refused(said: str, questions: object = QUESTIONS, shown: object = SHOWN) -> Refused:
    """A task of these questions and demonstrations."""
    return Refused(said, [f"tasks=[{TASK}]"], {"q.jsonl": questions, "d.jsonl": shown})


CONTRACT = Contract(
    panels=[
        "What was read", "Accuracy", "Right answers", "Against cot", "Tags", "Replies with faults of tags", "Price",
        "Training loss of solver", "Page for readers",
        "Published: HoT against CoT", "Published: readers",
    ],
    half_way="answers/rules-*/*.jsonl",
    killed_in="compare",
    same=outputs("compare", "read_replies"),
    refused=[
        Refused("no model is asked", ["models=[]", "solver=null"]),
        Refused("did you mean modes", ["mode=[cot]"]),
        Refused("cot stands there twice", ["modes=[cot, cot]"]),
        Refused("no such file", ["tasks=[{name: own, items: {path: ./gone.jsonl}}]"]),
        refused("q.jsonl:2", [*QUESTIONS, {"question": "How many?"}]),
        refused("d.jsonl:2", QUESTIONS, [*SHOWN, {"question": "How many?", "answer": ""}]),
        refused("a demonstration shows the test question", QUESTIONS, LEAK),
        refused("a demonstration without `Answer:`", QUESTIONS, [{"mode": "hot", "text": "Question: How many?"}]),
        refused("begins with `Question:`", QUESTIONS, [{"mode": "hot", "text": "How many?"}]),
    ],
    spared="answers/*/*.jsonl",
    no_effect=["spending.cap_usd=5", "spending={cap_usd: 7}", "spending.cap_usd=0"],
    late={
        "draw.count=7": "read_tasks",
        "samples=2": "ask",
        "models.0.sampling.max_tokens=9": "ask",
        "repair=close": "read_replies",
        "solver.problems=33": "train_solver",
        "solver_sampling.max_tokens=9": "ask_solver",
        "modes=[cot, hot, random_tags]": "train_solver",
        "reader.items=3": "make_reader_page",
    },
)  # fmt: skip
