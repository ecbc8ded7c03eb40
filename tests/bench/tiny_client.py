"""The ClientApp that bench_scale.py visits: a model of 64 numbers, no work."""

from __future__ import annotations

import numpy as np
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()


def content() -> RecordDict:
    """What a client is sent."""
    return RecordDict({"arrays": ArrayRecord([np.zeros(64, np.float32)])})


@app.train()
def train(message: Message, context: Context) -> Message:
    arrays = ArrayRecord([array + 1 for array in message.content["arrays"].to_numpy_ndarrays()])
    reply = RecordDict({"arrays": arrays, "metrics": MetricRecord({"num-examples": 1})})
    return Message(reply, reply_to=message)
