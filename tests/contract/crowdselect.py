"""The contract of the job crowdselect."""

from tests.contract.record import Contract, Refused, outputs

AWAY = '{provider: openai, name: away, model: m, base_url: "http://127.0.0.1:9/v1"}'
SCRIPTED = '{provider: scripted, name: a, otherwise: "1"}'
CONTRACT = Contract(
    panels=[
        "Mean score by model and cluster", "Stability", "Map of the instructions", "Picked first", "Passed over",
        "Students by what they were trained on", "CrowdSelect − random", "What each way of choosing",
    ],
    half_way="answers/student-*/*.jsonl",
    killed_in="compare_students",
    from_copy=["answers/student-*", "answers/before-training-*"],
    same=outputs("compare_students"),
    refused=[
        Refused("away cannot be reached", [f"models=[{AWAY}]"]),
        Refused("NO_SUCH_KEY is not set", ["models=[{provider: openai, name: k, model: m, api_key_env: NO_SUCH_KEY}]"]),
        Refused("gone cannot be loaded: it has no config.json", ["models=[{provider: hf, name: gone, path: FILES}]"]),
        Refused("models.0.path: ./gone", ["models=[{provider: hf, name: gone, path: ./gone}]"]),
        Refused("more than one model is called a", [f"models=[{SCRIPTED}, {SCRIPTED}]"]),
        Refused("selection.weights", ["selection.weights=[1, 1]"]),
        Refused("did you mean weights", ["selection.weight=[1, 1, 2]"]),
    ],
    spared="stages/collect_answers-*",
    no_effect=[
        "students.batch_size=5", "collect={sampling: {max_tokens: 48}, cap_usd: 5}",
        "embedding.model={provider: packaged, batch_size: 7}",
    ],
    late={
        "collect.sampling.max_tokens=9": "collect_answers",
        "selection.weights=[1, 2, 1]": "select",
        "students.training.optimizer.learning_rate=0.01": "train_students",
        "students.sampling.max_tokens=9": "compare_students",
    },
)  # fmt: skip
