"""Each attack by itself, in full, beside a neighbour, at a server of a language model, embedder, planner and policy.

For as long as an attack is repeated, at least five seconds, a client with a key asks each service once a second, over
connections of its own. Its answers are told as multiples of the median that their service has while nobody attacks.
Bars: all of them answered, their median at most three times the quiet one and the slowest three times the slowest
quiet one; replicas idle two seconds after the last attacker has gone; none more than a fifth larger at the end; no
attacker told what it should not be. Replicas that work on, or no longer answer, are ended before the next attack.

python tests/bench/bench_attacks.py [connections] [strangers] [bodies] [chats] [forms] [texts] [robots] [--no-keys]
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

import ray

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from squadron.core.cluster import connect
from tests.attacks.attack import Attack
from tests.attacks.harness import Medians, carry_out, growth, listen, memory, seconds_until_idle, slowest, times_slower
from tests.attacks.kinds import KINDS
from tests.attacks.server import attacked
from tests.attacks.wire import Place

REPEAT_S, QUIET_S, SLOWER, IDLE_S, GROWTH, RECOVERY_S = 5.0, 8.0, 3.0, 2.0, 0.2, 90.0


def carry_out_alone(place: Place, kind: str, attack: Attack, quiet: Medians, worst_quiet: float, keyed: bool) -> bool:
    """Carry an attack out and print what came of it. Whether all bars were met."""
    held = memory()
    result = carry_out(place, [attack], keyed, at_least_s=REPEAT_S)
    median, worst = times_slower(result.neighbour, quiet)
    grown = growth(held, memory())
    missed = {
        f"told {dict(result.wrong.get(attack.name, {}))}": bool(result.wrong),
        "leak": bool(result.leaks),
        f"not answered {result.neighbour.failed}": bool(result.neighbour.failed),
        "median": median > SLOWER,
        "slowest": worst > SLOWER * worst_quiet,
        "not idle": result.idle_s > IDLE_S,
        "grown": grown > GROWTH,
    }
    seen = " ".join(f"{outcome}:{count}" for outcome, count in result.seen[attack.name].most_common())
    figures = f"{median:5.1f} {worst:7.1f} {result.idle_s:5.1f} s {grown:+5.0%}"
    said = "; ".join(what for what, is_missed in missed.items() if is_missed)
    print(f"  {kind:11} {attack.name[:55]:55} {figures}  {seen:30} {f'MISSED: {said}' if said else ''}", flush=True)
    if result.idle_s > IDLE_S or result.neighbour.failed:
        recover(place)
    return not said


def recover(place: Place) -> None:
    """End replicas that still compute, and return when a neighbour is answered again."""
    if seconds_until_idle() > IDLE_S:
        for known in ray.util.list_named_actors(all_namespaces=True):
            if known["name"].startswith("SERVE_REPLICA") and "#gateway#" not in known["name"]:
                ray.kill(ray.get_actor(known["name"], namespace=known["namespace"]))
    deadline = time.monotonic() + RECOVERY_S
    while (seen := listen(place, 1.2)).failed:
        assert time.monotonic() < deadline, f"the server has not recovered: {seen.failed}"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("kinds", nargs="*", default=list(KINDS))
    parser.add_argument("--no-keys", action="store_true", help="a server that needs none")
    options = parser.parse_args()
    keyed = not options.no_keys
    connect(cpus=2)
    with tempfile.TemporaryDirectory() as folder, attacked(Path(folder), keyed) as place:
        first = listen(place, QUIET_S)
        alone = listen(place, QUIET_S)
        quiet = slowest(alone)
        _, worst = times_slower(alone, quiet)
        print(
            "quiet:", *(f"{path} {1000 * seconds:.0f} ms;" for path, seconds in quiet.items()), f"slowest {worst:.1f}"
        )
        print("  kind, attack, neighbour's median and slowest as multiples of quiet, idle after, largest growth, told")
        attacks = [(kind, attack) for kind in options.kinds for attack in KINDS[kind]]
        met = [carry_out_alone(place, kind, attack, quiet, worst, keyed) for kind, attack in attacks]
        assert not first.failed
    print(f"{len(met)} attacks, {met.count(False)} missed a bar")
    sys.exit(not all(met))


if __name__ == "__main__":
    main()
