"""The contract of the job self_rewarding."""

from typing import Any

from tests.contract.record import Contract, Refused, contents

CONTEST = {
    "question": "What is 2+2?", "steps": [], "first": "Step 1: 4.", "second": "Step 1: 5.", "judgement": "4. [[A]]",
    "better": "A",
}  # fmt: skip
FILES: dict[str, list[Any]] = {
    "problems.jsonl": [{"problem": f"What is {n}+2?"} for n in range(8)],
    "solutions.jsonl": [{"problem": "What is 2+2?", "solution": "Step 1: 2+2=4, so \\boxed{4}."}] * 4,
    "contests.jsonl": [{**CONTEST, "question": f"What is {n}+2?"} for n in range(8)],
    "test.jsonl": [{"question": "What is 2+3?", "answer": "5"}],
}
OWN = [
    "problems={path: FILES/problems.jsonl}", "instruction.path=FILES/solutions.jsonl",
    "judging.path=FILES/contests.jsonl", "evaluation.benchmarks=[{name: own, path: FILES/test.jsonl}]",
]  # fmt: skip


def own(said: str, *words: str, **files: list[Any]) -> Refused:
    """Files of one's own, some of which cannot be used, and a model that is not there."""
    return Refused(said, [*OWN, "base=FILES", *words], FILES | {f"{name}.jsonl": rows for name, rows in files.items()})


CONTRACT = Contract(
    words=["--workers", "1"],
    panels=[
        "Solved by round", "Judging by round", "A search", "M1 judges", "Training loss of M2", "M2 − M1",
        "model time spent judging", "taken back after a tie", "What the first model learns from",
    ],
    half_way="answers/M1-*/*.jsonl",
    killed_in="prefer_steps",
    from_copy=["answers/M1-*"],
    same=contents("stages/prefer_steps-*/preferences.jsonl"),
    refused=[
        own("answer", test=[{"question": "What is 2+3?"}]),
        own("answer", test=[{"question": "What?", "answer": "I would rather not say it"}]),
        own("no problems here", problems=[]),
        own("question", problems=[{"text": "?"}]),
        own("does not end with the verdict", contests=[{**CONTEST, "better": "B"}]),
        own("solution", solutions=[{"problem": "?"}]),
        own("too few", contests=[CONTEST]),
        own("NO_SUCH_KEY is not set",
            "instruction.splitter={provider: openai, name: o, model: o, api_key_env: NO_SUCH_KEY}"),
        own("the base model cannot be loaded"),
    ],
    spared="stages/fine_tune-*",
    no_effect=["generation.batch_size=7", "generation.timeout_s=99", "rounds.training.checkpoint.every=3"],
    late={
        "world.training.optimizer.learning_rate=0.01": "prepare_base",
        "tuning.optimizer.learning_rate=0.01": "fine_tune",
        "rounds.proposing.temperature=0.9": "prefer_steps",
        "rounds.beta=0.3": "optimize",
        "evaluation.scaling=2": "compare",
    },
)  # fmt: skip
