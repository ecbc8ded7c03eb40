"""Driving by the clock: control never waits, whatever becomes of the Reasoner."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np

from squadron.core.folder import Folder
from squadron.core.profile import WorkerResources
from squadron.llm.embed import PackagedEmbedder
from squadron.llm.settings import OpenAiModel, Rule, ScriptedModel
from squadron.methods.actor_reasoner.benchmark import FULL, Texts, World
from squadron.methods.actor_reasoner.config import ActorReasonerConfig, LiveConfig, ReasonerConfig
from squadron.methods.actor_reasoner.episodes import run_episodes
from squadron.methods.actor_reasoner.live import Clock, LiveReasoner, Mailbox
from squadron.methods.actor_reasoner.memory import Memory
from squadron.methods.actor_reasoner.policy import PairPolicy
from squadron.methods.actor_reasoner.prompts import Thought, memory_words
from squadron.methods.actor_reasoner.records import ReasonerModel

sys.path.append(str(Path(__file__).resolve().parents[1] / "llm"))
from server import chat_server

ANSWER = "Style: AGGRESSIVE\nIntention: ACCELERATE\nDecision: SLOWER\nDisplay: you go first"


def world(model: Any, ticks: int) -> World:
    settings = ActorReasonerConfig.model_validate(
        {"scenes": ["merge"], "traffic": {"ticks": ticks}, "reasoner": ReasonerConfig(model=model)}
    )
    return World(Folder("."), settings.world("merge"), ReasonerModel())


def remembering(texts: Texts) -> Memory:
    words = memory_words(Thought(0, 0, 2, "you go first"), "")
    memory = Memory(9, texts([words]).shape[1])
    memory.write(0, np.zeros(5), texts([words])[0], 2, words)
    return memory


def drive_by_the_clock(model: Any, ticks: int, config: LiveConfig, at: Any) -> tuple[Clock, Mailbox]:
    """Two cars; `at(tick, mailbox)` is called before each tick."""
    place, texts = world(model, ticks), Texts(PackagedEmbedder())
    memory, clock = remembering(texts), Clock(0.1)
    mailbox = Mailbox(lambda: LiveReasoner(place, config.slowed_s), texts, config, WorkerResources(cpus=1))

    def pace(tick: int) -> None:
        at(tick, mailbox)
        clock(tick)

    with mailbox:
        run_episodes(
            place.start(range(2)), place.config.drivers, PairPolicy("merge", FULL, mailbox, memory, texts), pace
        )
    return clock, mailbox


def test_control_never_waits_for_a_reasoner_that_is_slow_and_dies(ray_cluster: object) -> None:
    model = ScriptedModel(name="m", rules=(Rule(pattern=".", reply=ANSWER),))
    killed: list[int] = []

    def at(tick: int, mailbox: Mailbox) -> None:
        if mailbox.account.thoughts and not killed:  # it is at its next thought already
            killed.extend(mailbox.pids)
            for pid in mailbox.pids:
                os.kill(pid, signal.SIGKILL)

    clock, mailbox = drive_by_the_clock(model, 120, LiveConfig(slowed_s=4), at)
    account = mailbox.account
    assert killed and account.lost == 1 and "died" in account.causes[0]
    assert account.thoughts > 0 and account.unread == 0 and min(account.ages_s) >= 4
    assert account.forgotten > account.thoughts, "of many situations only the newest were taken up"
    assert max(clock.work_s) < 4, "no tick waited for a thought"


def test_an_endpoint_that_goes_away_mid_episode_leaves_the_actor_driving(ray_cluster: object) -> None:
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(chat_server(seconds=0.05))
        model = OpenAiModel(name="m", model="echo", base_url=server.base_url, timeout_s=30, max_attempts=1)
        before: list[int] = []
        ending = threading.Thread(target=stack.close)  # it takes a while, which is not the control loop's affair

        def at(tick: int, mailbox: Mailbox) -> None:
            if mailbox.account.thoughts and not before:
                before.append(tick)
                ending.start()

        clock, mailbox = drive_by_the_clock(model, 60, LiveConfig(timeout_s=60), at)
        assert before
        ending.join()
    account = mailbox.account
    assert account.thoughts > 0 and account.unread == account.thoughts, "prose is no thought"
    assert len(clock.work_s) > before[0] + 10 and max(clock.work_s) < 20, "no tick waited for the server"
