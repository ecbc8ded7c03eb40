"""Self-rewarding: what the rounds are worth over three seeds, the baseline, batched searches, and twenty kills.

    python tests/bench/bench_self_rewarding.py [seeds] [mistakes] [baseline] [batching] [kills]

`seeds` runs `squadron run self_rewarding full` with three seeds; `mistakes` counts whose side their judges took;
`batching` and `kills` use the first seed's models. `baseline` runs the demo with the first seed (`baseline=0,1,2`: with
these), rewarding by process and by outcome.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from itertools import pairwise, product
from pathlib import Path
from statistics import median
from typing import Any

import psutil

from squadron.core.config import load_config
from squadron.data.arithmetic import problems
from squadron.data.stepwise import is_right
from squadron.evaluate.statistics import mean_t_interval
from squadron.llm.backends.hf import HfChat
from squadron.llm.batch.model_client import item_key
from squadron.llm.batch.programs import Program
from squadron.llm.chat import ChatReply, ChatRequest
from squadron.llm.settings import HfModel
from squadron.methods.self_rewarding.config import SelfRewardingConfig
from squadron.methods.self_rewarding.conversations import Searched, Searcher
from squadron.methods.self_rewarding.records import Evaluation
from squadron.methods.self_rewarding.synthetic_task import draw

ROOT = Path(__file__).resolve().parents[2]
RUNS = ROOT / "runs" / "bench"
SEEDS, KILLS = (0, 1, 2), 20
GAIN_AIM, JUDGE_BAR, BIAS_BAR, FALL_BAR, SPEEDUP_BAR, MINUTES_BAR = 0.08, 0.80, 0.05, 0.02, 5.0, 25.0


def folder(seed: int) -> Path:
    return RUNS / f"self_rewarding-{seed}"


def command(seed: int) -> list[str]:
    words = ["run", "self_rewarding", "full", f"seed={seed}", "--run", str(folder(seed))]
    return [sys.executable, "-m", "squadron.core.cli", *words]


def outputs(seed: int, stage: str) -> list[Any]:
    return outputs_of(folder(seed), stage)


def outputs_of(run: Path, stage: str) -> list[Any]:
    """What the stages of a name ended with, in the order in which they began."""
    found = sorted(run.glob(f"stages/{stage}-*/started.json"), key=lambda path: path.stat().st_mtime)
    return [json.loads((path.parent / "done.json").read_text())["output"] for path in found]


def measured(records: list[Any]) -> tuple[list[float], list[float], list[float]]:
    """By model: the share of problems solved, the judge's accuracy, its position bias."""
    results = [Evaluation.model_validate(record) for record in records]
    solved = [one.benchmarks[0].accuracy for one in results]
    return solved, [one.judge.accuracy for one in results], [one.judge.position_bias for one in results]


def percent(shares: list[float]) -> str:
    return ", ".join(f"{share:.1%}" for share in shares)


def seeds() -> bool:
    """Gain of the last model over M1, and how each model judges, over seeds."""
    gains, met = [], True
    for seed in SEEDS:
        shutil.rmtree(folder(seed), ignore_errors=True)
        started = time.monotonic()
        subprocess.run(command(seed), check=True, stdout=subprocess.DEVNULL)
        minutes = (time.monotonic() - started) / 60
        solved, judged, bias = measured(outputs(seed, "evaluate"))
        (gain,) = outputs(seed, "compare")
        gains.append(gain["mean"])
        print(f"seed {seed}: {minutes:.1f} min; solved by M0, M1, … {percent(solved)}")
        print(f"  judged {percent(judged)}; position bias {percent(bias)}")
        print(f"  last − M1: {gain['mean']:+.1%}, 95% over problems {gain['low']:+.1%} to {gain['high']:+.1%}")
        steady = all(later >= earlier - FALL_BAR for earlier, later in pairwise(judged[1:]))
        met &= minutes <= MINUTES_BAR and gain["low"] > 0 and judged[1] >= JUDGE_BAR and bias[1] < BIAS_BAR and steady
    low, high = mean_t_interval(gains)
    mean = sum(gains) / len(gains)
    print(f"mean gain {mean:+.1%}, 95% over seeds {low:+.1%} to {high:+.1%}; aim {GAIN_AIM:+.0%}")
    return met and low > 0


def mistakes() -> bool:
    """By round, over seeds: preferences between a right step and a wrong one, and in how many the right one was
    chosen. There is no bar."""
    config = load_config(SelfRewardingConfig, str(ROOT / "configs/self_rewarding/full.yaml"), [])
    counts = [[0, 0] for _ in config.rounds.questions]
    for seed in SEEDS:
        drawn = {one.question: one for one in draw(config.world, seed, sum(config.rounds.questions)).rounds}
        for count, stage in zip(counts, outputs(seed, "prefer_steps"), strict=True):
            for line in (folder(seed) / stage["path"]).read_text().splitlines():
                row = json.loads(line)
                problem = drawn[row["question"]]
                chosen, rejected = (is_right(problem, row["steps"], row[side]) for side in ("chosen", "rejected"))
                count[0] += chosen and not rejected
                count[1] += chosen != rejected
    for number, (right, decided) in enumerate(counts, 1):
        print(
            f"round {number}: the judge took the right step's side in {right:,} of {decided:,}, {right / decided:.0%}"
        )
    return True


def baseline(seeds: Sequence[int] = SEEDS[:1]) -> bool:
    """The demo, rewarding by process and by outcome (SRLM), on the same problems. There is no bar."""
    for seed, rewarding in product(seeds, ("process", "outcome")):
        run = RUNS / f"self_rewarding-{rewarding}-{seed}"
        shutil.rmtree(run, ignore_errors=True)
        words = ["run", "self_rewarding", "demo", f"seed={seed}", f"rewarding={rewarding}", "--run", str(run)]
        started = time.monotonic()
        subprocess.run([sys.executable, "-m", "squadron.core.cli", *words], check=True, stdout=subprocess.DEVNULL)
        minutes = (time.monotonic() - started) / 60
        solved, judged, _ = measured(outputs_of(run, "evaluate"))
        (gain,) = outputs_of(run, "compare")
        prefer = "prefer_steps" if rewarding == "process" else "prefer_solutions"
        pairs = [one["count"] for one in outputs_of(run, prefer)]
        print(f"{rewarding}, seed {seed}: {minutes:.1f} min; solved by M0, M1, … {percent(solved)}")
        print(f"  judged {percent(judged)}; {sum(pairs):,} preferences")
        print(f"  last − M1: {gain['mean']:+.1%}, 95% over problems {gain['low']:+.1%} to {gain['high']:+.1%}")
    return True


def drive(chat: HfChat, programs: dict[str, Program[Searched]], together: bool) -> tuple[int, float]:
    """Run searches, their requests answered together or one call at a time. Steps taken, and seconds."""
    replies: dict[str, ChatReply] = {}
    waiting: list[tuple[Program[Searched], Any]] = [(program, None) for program in programs.values()]
    steps, started = 0, time.perf_counter()
    while waiting:
        asks = []
        for program, answers in waiting:
            try:
                asks.append((program, program.send(answers)))
            except StopIteration as end:
                steps += len(end.value.found.turns)
        wanted: dict[str, ChatRequest] = {}
        for _, ask in asks:
            for item in ask.items:
                assert isinstance(item, ChatRequest)
                key = item_key("", item)
                if key not in replies:
                    wanted[key] = ChatRequest(key, item.messages, item.sampling)
        for batch in [list(wanted.values())] if together else [[one] for one in wanted.values()]:
            replies.update({reply.key: reply for reply in chat.chat(batch)})
        waiting = [(program, [replies[item_key("", item)] for item in ask.items]) for program, ask in asks]
    return steps, time.perf_counter() - started


def batching() -> bool:
    """Steps a second of the same searches, batched and one call at a time, in alternating runs."""
    config = load_config(SelfRewardingConfig, str(ROOT / "configs/self_rewarding/full.yaml"), [])
    (path,) = [one["path"] for one in outputs(SEEDS[0], "fine_tune")]
    chat = HfChat(HfModel(name="M1", path=str(folder(SEEDS[0]) / path), batch_size=config.generation.batch_size))
    rounds = config.rounds
    searcher = Searcher(config.prompts, rounds.search, rounds.proposing, rounds.judging, seed=0)
    asked = [(str(number), one.question) for number, one in enumerate(problems(16, 123))]
    rates: dict[bool, list[float]] = {True: [], False: []}
    for _ in range(3):
        for together in rates:
            steps, seconds = drive(chat, {name: searcher(name, text) for name, text in asked}, together)
            rates[together].append(steps / seconds)
    batched, alone = median(rates[True]), median(rates[False])
    times = f"{batched / alone:.1f} times, bar {SPEEDUP_BAR:g}"
    print(f"steps a second: batched {batched:.1f}, one call at a time {alone:.2f}: {times}")
    return batched / alone >= SPEEDUP_BAR


def kills() -> bool:
    """A round killed twenty times, driver or generator, against the same round left alone."""
    source, target = folder(SEEDS[0]), RUNS / "self_rewarding-killed"
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target)
    first = sorted(target.glob("stages/prefer_steps-*/started.json"), key=lambda path: path.stat().st_mtime)[0].parent
    wanted = (first / "preferences.jsonl").read_bytes()
    for stage in (first, *target.glob("stages/compare-*")):
        shutil.rmtree(stage)
    (log,) = (target / "answers").glob("M1-*")
    for file in log.iterdir():
        file.unlink()
    draw = random.Random(0)
    words = [part if part != str(source) else str(target) for part in command(SEEDS[0])]
    killed = 0
    while killed < KILLS:
        driver = subprocess.Popen(words, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        known = set(log.iterdir())
        while driver.poll() is None and set(log.iterdir()) == known:
            time.sleep(0.05)
        while driver.poll() is None and killed < KILLS:
            time.sleep(draw.uniform(0.5, 4))
            killed += 1
            if draw.random() < 0.5:
                workers = [
                    one
                    for one in psutil.process_iter(["cmdline"])
                    if "Host.call" in " ".join(one.info["cmdline"] or ())
                ]
                for worker in workers[:1]:
                    worker.kill()
            else:
                os.killpg(driver.pid, signal.SIGKILL)
                driver.wait()
                break
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
    entries = [
        json.loads(line) for file in log.iterdir() for line in file.read_text().splitlines() if line.endswith("}")
    ]
    answered = [entry["key"] for entry in entries if not entry["error"]]
    again = len(answered) - len(set(answered))
    same = (first / "preferences.jsonl").read_bytes() == wanted
    what = "the same preferences" if same else "OTHER PREFERENCES"
    print(f"killed {killed} times: {what}; {again} of {len(answered):,} answers recorded twice")
    return same and again == 0


def main() -> int:
    parts: dict[str, Callable[..., bool]] = {
        "seeds": seeds,
        "mistakes": mistakes,
        "baseline": baseline,
        "batching": batching,
        "kills": kills,
    }
    met = []
    for word in sys.argv[1:] or list(parts):
        name, _, chosen = word.partition("=")
        met.append(parts[name](*([list(map(int, chosen.split(",")))] if chosen else [])))
    return 0 if all(met) else 1


if __name__ == "__main__":
    sys.exit(main())
