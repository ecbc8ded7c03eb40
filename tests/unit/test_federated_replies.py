"""Replies that do not fit together and methods that nobody calls are named before a strategy is left to them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Error, Message, MetricRecord, RecordDict
from flwr.common.constant import SUPERLINK_NODE_ID
from flwr.serverapp.strategy import FedAvg, FedXgbBagging, Krum
from flwr.supercore.task_identity import TaskIdentity

from squadron.core.errors import ConfigError, InputError
from squadron.federated import make_strategy
from squadron.federated.replies import check_model, check_replies, check_strategy, explain

SHAPE = (3,)
Reply = tuple[Any, ...]


def array(shape: tuple[int, ...] = SHAPE, kind: str = "f4", name: str = "w") -> ArrayRecord:
    return ArrayRecord({name: Array(np.ones(shape, kind))})


def replies(*contents: dict[str, Any] | None) -> list[Message]:
    """Replies of clients 0, 1, …; None for one that failed."""
    made = []
    for number, content in enumerate(contents):
        TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, SUPERLINK_NODE_ID, 1
        request = Message(RecordDict(), message_type="train", dst_node_id=number + 1000)
        TaskIdentity.node_id = number + 1000
        made.append(
            Message(Error(1, "lost"), reply_to=request)
            if content is None
            else Message(RecordDict(content), reply_to=request)
        )
    return made


def reply(arrays: ArrayRecord | None = None, **metrics: Any) -> dict[str, Any]:
    named = {name.replace("_", "-"): value for name, value in metrics.items()}
    return {"arrays": array() if arrays is None else arrays, "metrics": MetricRecord({"num-examples": 2, **named})}


def client(message: Message) -> str:
    return f"client {message.metadata.src_node_id - 1000}"


CASES: dict[str, tuple[list[dict[str, Any] | None], str]] = {
    "no examples": ([reply(num_examples=0), reply(num_examples=0)], "no client has examples.*client 0, client 1"),
    "cancelling": ([reply(num_examples=5), reply(num_examples=-5)], "client 1 replied with num-examples -5"),
    "nan": ([reply(num_examples=float("nan")), reply()], "client 0 replied with num-examples nan"),
    "inf": ([reply(), reply(num_examples=float("inf"))], "client 1 replied with num-examples inf"),
    "list": ([reply(num_examples=[1]), reply(num_examples=[1])], "client 0, client 1 .* num-examples a list of 1"),
    "missing": ([{"a": array(), "m": MetricRecord({"n": 1})}] * 2, "num-examples missing, where"),
    "lengths": (
        [reply(a=[1.0, 2.0]), reply(a=[1.0])],
        r"client 1 .* 'a' a list of 1, client 0's is a list of 2",
    ),
    "kinds": ([reply(a=1.0), None, reply(a=[1.0])], r"client 2 .* metric 'a' a list of 1, client 0's is a number"),
    "names of metrics": ([reply(a=1.0), reply()], r"client 1 .* metric 'a' missing"),
    "shapes": ([reply(array((7,))), reply()], r"client 1 .* array 'w' float32\[3\], client 0's is float32\[7\]"),
    "broadcast": ([reply(array((1,))), reply()], r"float32\[3\], client 0's is float32\[1\]"),
    "dtypes": ([reply(), reply(array(kind="f8"))], r"client 1 .* float64\[3\], client 0's is float32\[3\]"),
    "names": ([reply(), reply(array(name="v"))], r"client 1 .* array 'w' missing, client 0's is float32\[3\]"),
    "no arrays": ([reply(ArrayRecord()), reply(ArrayRecord())], "client 0, client 1 replied with no arrays"),
    "no record": ([{"m": MetricRecord({"num-examples": 1})}, reply()], "client 0 replied with 0 ArrayRecords"),
    "no metrics": ([{"a": array()}, reply()], "client 0 replied with 0 MetricRecords"),
}


@pytest.mark.parametrize("kind", CASES)
def test_replies_that_do_not_fit_are_refused_by_round_and_client(kind: str) -> None:
    contents, words = CASES[kind]
    with pytest.raises(InputError, match=f"round 7 [^$]*{words}"):
        check_replies(FedAvg(), 7, "train", replies(*contents), client)


def test_what_fits_is_taken() -> None:
    some = replies(reply(num_examples=0), None, reply(num_examples=2.5))
    for name in ("FedAvg", "FedAdam", "FedMedian", "Krum", "QFedAvg"):
        settings = {"client_learning_rate": 0.1} if name == "QFedAvg" else {}
        check_replies(make_strategy(name, **settings), 1, "train", some, client)
    check_replies(FedAvg(), 1, "evaluate", replies({"m": MetricRecord({"num-examples": 1})}), client)
    check_replies(FedAvg(), 1, "train", replies(None, None), client)
    check_replies(FedXgbBagging(), 1, "train", replies(reply(array((1,))), reply(array((9,)))), client)


class Own(FedAvg):
    def aggregate_train(self, server_round: int, replies: Any) -> Any:
        contents = [reply.content for reply in replies]
        return sum(next(iter(content.array_records.values()))["w"].numpy() for content in contents), None


def test_a_strategy_of_ones_own_may_take_any_arrays_and_what_it_raises_is_explained() -> None:
    odd = replies(reply(array((7,))), reply())
    check_replies(Own(), 2, "train", odd, client)
    with pytest.raises(InputError, match="num-examples nan"):
        check_replies(Own(), 2, "train", replies(reply(num_examples=float("nan"))), client)
    try:
        Own().aggregate_train(2, odd)
    except ValueError as error:
        told = explain(error, 2, odd, client)
    assert "replies of round 2: ValueError" in told.what and "client 1 replied with the array 'w'" in told.what
    assert "test_federated_replies.py, line" in told.where


def test_a_model_without_arrays_is_refused() -> None:
    with pytest.raises(InputError, match="without arrays in round 3"):
        check_model(3, ArrayRecord())


class Decays(FedAvg):
    def start(self, *arguments: Any, **more: Any) -> Any:
        return super().start(*arguments, **more)

    def agregate_train(self, *arguments: Any) -> Any:
        return arguments

    def configure_train(self, *arguments: Any) -> Any:
        return self.evaluate() or super().configure_train(*arguments)

    def evaluate(self) -> Any:
        return None


class Earlier(FedAvg):
    def aggregate_fit(self, *arguments: Any) -> Any:
        return arguments


def test_methods_that_are_never_called_are_said() -> None:
    said = check_strategy(Decays())
    assert [text.partition(":")[0] for text in said] == [
        "Decays.agregate_train is never called", "Decays.start is never called",
    ]  # fmt: skip
    assert "did you mean aggregate_train?" in said[0] and "saved after each" in said[1]
    wrapper = "DifferentialPrivacyServerSideFixedClipping"
    outer = make_strategy(wrapper, strategy=Earlier(), noise_multiplier=0.1, clipping_norm=1.0, num_sampled_clients=2)
    assert check_strategy(outer) == ["Earlier.aggregate_fit is never called: Flower calls it aggregate_train now"]
    assert check_strategy(Krum()) == check_strategy(Own()) == []
    hooked: Any = FedAvg()
    hooked.start = lambda: None
    assert len(check_strategy(hooked)) == 1


def test_what_is_no_strategy_is_refused() -> None:
    for thing in (object, dict):
        with pytest.raises(ConfigError, match="is no flwr"):
            check_strategy(thing())
