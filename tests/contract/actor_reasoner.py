"""The contract of the job actor_reasoner."""

from tests.contract.record import Contract, Refused, outputs

AWAY = "{provider: openai, name: away, model: m, base_url: 'http://127.0.0.1:9/v1'}"
CONTRACT = Contract(
    panels=[
        "Who drives how: merge", "Actor and Reasoner against the others: merge", "Reasoner alone, the world waits",
        "rule (IDM)", "What memories are worth: merge", "Memories: merge", "By the clock: merge",
        "to the conflict over time", "control ticks missed",
    ],
    half_way="stages/compare-*/rows/*.jsonl",
    killed_in="compare",
    killed_words=["live.cars=0"],
    again=["live.cars=0", "--workers", "1"],  # on other workers
    same=outputs("build_memory", "compare"),
    kept="stages/*/rows/*.jsonl",  # what was driven stays driven
    refused=[
        Refused("away cannot be reached", [f"reasoner.model={AWAY}"]),
        Refused("needs {situation}", ["reasoner.template=What now?"]),
        Refused("nothing to fill in", ["reasoner.template={situation} {other_sped}"]),
        Refused("traffic.others must be 1", ["traffic.others=2"]),
        Refused("a scene is named twice", ["scenes=[merge, merge]"]),
        Refused("intersection", ["scenes=[bridge]"]),
        Refused("CommonRoad", ["recorded=[pyproject.toml]"]),
        Refused("memory.path: gone.safetensors", ["memory.path=gone.safetensors"]),
        Refused("did you mean capacity", ["memory.capcity=3"]),
    ],
    spared="stages/build_memory-*",
    no_effect=["evaluation.timeout_s=99", "evaluation.filmed=0", "memory.embedder={provider: packaged, batch_size: 7}"],
    late={
        "reasoner.think_s=0.7": "build_memory",
        "lessons.training.optimizer.learning_rate=0.01": "prepare_reasoner",
        "evaluation.memory_sizes=[2]": "compare",
        "live.slowed_s=0.1": "drive_live",
    },
)  # fmt: skip
