"""The contract of the job flame."""

from tests.contract.record import Contract, Refused, contents

CONTRACT = Contract(
    words=["federation.rounds=4", "baselines.centralised=false", "strategy.name=fedadam"],
    panels=["success on unseen homes", "Loss by round", "The robot at work", "fedadam", "data:image/webp;base64"],
    half_way="stages/federate-*/rounds/round-0002.*",
    killed_in="federate",
    killed_words=["--workers", "2"],
    same=contents("stages/federate-*/rounds/round-0004.*"),  # all rounds have gone into it
    refused=[
        Refused("did you mean clients?", ["homes.clinets=3"]),
        Refused("should be a valid whole number, not 'many'", ["training.batch_size=many"]),
        Refused("clients_per_round is 9, but homes.clients is 3", ["federation.clients_per_round=9"]),
        Refused("no strategy called 'fedavgg'", ["strategy.name=fedavgg"]),
        Refused("FedAvg has no setting 'etaa'", ["strategy.settings={etaa: 1}", "strategy.name=fedavg"]),
        Refused("asks for 512 workers", ["--workers", "512"]),
        Refused("kitchen.parquet", ["demos.recordings=FILES"], {"kitchen.parquet": ""}),
    ],
    spared="stages/federate-*/rounds/*",
    no_effect=["demos.timeout_s=99", "federation.timeout_s=99", "evaluation.timeout_s=99", "evaluation.film_size=99"],
    late={
        "training.learning_rate=0.01": "federate",
        "evaluation.seed=7": "choose_round",
        "baselines.local_only=1": "train_baselines",
    },
)
