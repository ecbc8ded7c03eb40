"""Attacks by robots: routes that cannot be planned, or slowly; images that are none, or too large; many films."""

from __future__ import annotations

import base64
import math
import zlib
from typing import Any

from tests.attacks.attack import ACT, LIMITED, PLAN, WATCH, Attack, ask, attack, drop, post
from tests.attacks.chats import WORKED
from tests.pictures import png

CROSSING = [[[0, 0], [10, 0]], [[5, -5], [5, 5]], [[3, 8], [3, -8]]]
REFUSED = "400 413 429"


def plan(*routes: Any, **more: Any) -> dict[str, Any]:
    """Routes to plan."""
    return {"routes": list(routes), **more}


def _zigzag(corners: int, width: float, y: float, step: float = 0.5) -> list[list[float]]:
    return [[n * step, y + width * (n % 2)] for n in range(corners)]


def _spiral(corners: int, turn: float) -> list[list[float]]:
    return [[0.01 * n * math.cos(turn * n), 0.01 * n * math.sin(turn * n)] for n in range(corners)]


def _star(robots: int) -> list[list[list[float]]]:
    """Robots on a circle that all drive across its middle."""
    angles = [2 * math.pi * n / robots for n in range(robots)]
    radius = max(5.0, robots / 4)
    return [
        [[radius * math.cos(a), radius * math.sin(a)], [-radius * math.cos(a), -radius * math.sin(a)]] for a in angles
    ]


def _grid(robots: int) -> list[list[list[float]]]:
    return [[[2.0 * n, 0.0], [2.0 * n, 20.0]] for n in range(robots)]


def robot(image: str, state: Any = (0.0,) * 8) -> dict[str, Any]:
    """A robot that sees this."""
    return {"image": image, "state": list(state)}


def seen(picture: bytes) -> dict[str, Any]:
    """A robot that sees this picture."""
    return robot(base64.b64encode(picture).decode())


_TEXT = b"a\0\0" + zlib.compress(b"a" * (64 * 2**20), 9)
GOOD = base64.b64encode(png(16, 16)).decode()

ATTACKS: tuple[Attack, ...] = (
    attack(
        "two routes of 6,000 corners", post(PLAN, plan(_zigzag(6000, 3, 0), _zigzag(6000, 3, 1.5)), times=2), WORKED
    ),
    attack(
        "two routes that meet 2,000 times",
        post(PLAN, plan(_zigzag(2000, 4, 0, 4), _zigzag(2000, -4, 4, 4)), times=4),
        WORKED,
    ),
    attack("20 routes of 500 corners", post(PLAN, plan(*[_zigzag(500, 30, n) for n in range(20)]), times=2), WORKED),
    attack("a spiral of 5,000 corners", post(PLAN, plan(_spiral(5000, 0.1), [[-60, 0], [60, 0]])), WORKED),
    attack(
        "a route that crosses itself 10,000 times", post(PLAN, plan(_spiral(10_000, 2.5), _spiral(10_000, 2.4))), WORKED
    ),
    attack("10,000 robots side by side", post(PLAN, plan(*_grid(10_000))), WORKED + " 413"),
    attack("10,000 robots across one point", post(PLAN, plan(*_star(10_000))), WORKED + " 413"),
    attack("200 robots across one point", post(PLAN, plan(*_star(200)), times=4), WORKED),
    attack(
        "60 robots, 1,000 samples, 100 rounds", post(PLAN, plan(*_star(60), samples=1000, rounds=100), times=4), WORKED
    ),
    attack(
        "100,000 corners in a line",
        post(PLAN, plan([[n, 0] for n in range(100_000)], [[5, -5], [5, 5]]), times=2),
        WORKED,
    ),
    attack("30 times the same plan", post(PLAN, plan(*_star(30), samples=300), times=30), WORKED),
    attack("plans dropped at once", drop(PLAN, plan(*_star(60), samples=1000, rounds=100), 30, 0.1), WORKED + " held"),
    attack(
        "coordinates of 1e150",
        post(PLAN, plan([[0, 0], [1e150, 1e150]], [[0, 1e150], [1e150, 0]]), plan([[0, 0], [1e150, 0]])),
        REFUSED,
    ),
    attack("coordinates of 1e308", post(PLAN, plan([[-1e308, 0], [1e308, 0]], [[0, -1e308], [0, 1e308]])), REFUSED),
    attack(
        "coordinates of 1e9 and 1e-9",
        post(PLAN, plan([[0, 0], [1e9, 0]], [[5e8, -5], [5e8, 5]]), plan([[0, 0], [1e-9, 0]], [[1, 1], [2, 2]])),
        WORKED,
    ),
    attack("coordinates of 1e-300", post(PLAN, plan([[0, 0], [1e-300, 0]], [[1, 1], [1, 1 + 1e-300], [2, 2]])), WORKED),
    attack(
        "coordinates that are no numbers",
        post(
            PLAN,
            b'{"routes": [[[0, 0], [NaN, 1]]]}',
            b'{"routes": [[[0, 0], [1e999, 1]]]}',
            plan([["0", 0], [1, 1]]),
            plan([[None, 0], [1, 1]]),
            plan([[True, 0], [1, 1]]),
        ),
        "400 200 429",
    ),
    attack(
        "points of one, three and no numbers",
        post(PLAN, plan([[0], [1]]), plan([[0, 0, 0], [1, 1, 1]]), plan([[], []]), plan([[0, 0]]), plan([]), plan()),
        REFUSED,
    ),
    attack(
        "routes that stand still",
        post(PLAN, plan([[0, 0], [0, 0]]), plan([[0, 0]] * 1000), plan([[0, 0], [-0.0, 0]])),
        REFUSED,
    ),
    attack(
        "routes that lie on one another",
        post(PLAN, plan(*[[[0, 0], [10, 0]]] * 20), plan([[0, 0], [10, 0]], [[10, 0], [0, 0]])),
        WORKED,
    ),
    attack(
        "routes there and back a thousand times",
        post(PLAN, plan([[n % 2 * 10, 0] for n in range(1000)], [[n % 2 * 10, 1] for n in range(1000)])),
        WORKED,
    ),
    attack(
        "routes that touch and do not cross",
        post(PLAN, plan([[0, 0], [10, 0]], [[0, 0.8], [10, 0.8]], [[0, -0.8], [10, -0.8]])),
        WORKED,
    ),
    attack(
        "sizes of robots",
        post(PLAN, *[plan(*CROSSING, limits={"radius_m": r}) for r in (0, -1, 1e-300, 1e-9, 1e9, 1e150, 1e308)]),
        WORKED,
    ),
    attack(
        "densities",
        post(PLAN, *[plan(*CROSSING, limits={"density": d}) for d in (0, -1, 2**31, 2**63, 10**30, 1.5)]),
        WORKED,
    ),
    attack(
        "10,000 areas",
        post(
            PLAN,
            plan(*CROSSING, limits={"areas": [{"x_m": [0, n], "y_m": [n, 0], "density": 1} for n in range(10_000)]}),
            times=2,
        ),
        WORKED,
    ),
    attack(
        "areas of no and of endless size",
        post(
            PLAN,
            *[
                plan(*CROSSING, limits={"areas": [{"x_m": x, "y_m": x, "density": 1}]})
                for x in ([0, 0], [5, -5], [-1e308, 1e308], [1e150, 1e150])
            ],
        ),
        WORKED,
    ),
    attack(
        "samples, rounds and seeds beyond",
        post(
            PLAN,
            *[
                plan(*CROSSING, **{name: value})
                for name in ("samples", "rounds", "seed")
                for value in (-1, 0.5, 2**32, 10**30)
            ],
        ),
        REFUSED,
    ),
    attack(
        "costs that there are not",
        post(PLAN, plan(*CROSSING, cost="a"), plan(*CROSSING, cost="maximum_completion"), plan(*CROSSING, cost=None)),
        WORKED,
    ),
    attack("one key's share of plans", post(PLAN, plan(*CROSSING), times=60, key=LIMITED), "200 429 504"),
    attack(
        "one key's share at the planner's own name",
        post("/coordination" + PLAN, plan(*CROSSING), times=60, key=LIMITED),
        "200 404 429",
    ),
    attack(
        "images that are none",
        post(
            ACT,
            *[
                {"robots": [robot(text)]}
                for text in (
                    "",
                    "a",
                    "====",
                    "\0",
                    base64.b64encode(b"GIF89a").decode(),
                    GOOD[:50],
                    GOOD + "a",
                    "é" * 99,
                )
            ],
        ),
        "400 429",
    ),
    attack(
        "images of other sizes",
        post(ACT, *[{"robots": [seen(png(*size))]} for size in ((1, 1), (15, 16), (16, 17), (1, 10_000), (600, 600))]),
        "400 429",
    ),
    attack("an image of 4,000 by 4,000 pixels", post(ACT, {"robots": [seen(png(4000, 4000))]}, times=8), REFUSED),
    attack(
        "an image that says it has 2^31 pixels each way",
        post(
            ACT,
            {"robots": [seen(png(16, 16, (2**31 - 1, 2**31 - 1)))]},
            {"robots": [seen(png(16, 16, (60_000, 60_000)))]},
        ),
        "400 429",
    ),
    attack("64 images of 4,000 by 4,000 pixels", post(ACT, {"robots": [seen(png(4000, 4000))] * 64}, times=4), REFUSED),
    attack(
        "an image with a text that unpacks to 64 MB",
        post(ACT, {"robots": [seen(png(16, 16, None, (b"zTXt", _TEXT)))] * 16}, times=4),
        "200 400 413 429 504",
    ),
    attack("images of 1 MB of noise", post(ACT, {"robots": [robot("A" * 2**20)] * 7}, times=4), REFUSED),
    attack("64 robots, 40 times", post(ACT, {"robots": [robot(GOOD)] * 64}, times=40), WORKED),
    attack(
        "more robots than may be",
        post(ACT, {"robots": [robot(GOOD)] * 65}, {"robots": [robot(GOOD)] * 10_000}, {"robots": []}),
        REFUSED,
    ),
    attack(
        "states of other lengths and sizes",
        post(
            ACT,
            *[
                {"robots": [robot(GOOD, state)]}
                for state in ([], [0] * 7, [0] * 9, [0] * 10**5, [1e4] * 8, ["0"] * 8, [None] * 8, [[0]] * 8)
            ],
        ),
        "400 200 429",
    ),
    attack(
        "states that are no numbers",
        post(
            ACT,
            b'{"robots": [{"image": "", "state": [NaN,0,0,0,0,0,0,0]}]}',
            b'{"robots": [{"image": "", "state": [1e999,0,0,0,0,0,0,0]}]}',
        ),
        "400 429",
    ),
    attack("actions dropped at once", drop(ACT, {"robots": [robot(GOOD)] * 64}, 100, 0.03), WORKED + " held"),
    attack("one key's share of actions", post(ACT, {"robots": [robot(GOOD)]}, times=100, key=LIMITED), "200 429"),
    attack(
        "one key's share at the policy's own name",
        post("/flame" + ACT, {"robots": [robot(GOOD)]}, times=60, key=LIMITED),
        "200 404 429",
    ),
    attack("60 films at once", post(WATCH, *[{"episode": n} for n in range(60)]), WORKED),
    attack(
        "films that there are not",
        post(WATCH, *[{"episode": n} for n in (-1, 10**6 + 1, 2**63, 1e300, 0.5)]),
        "400 429",
    ),
    attack("films dropped at once", drop(WATCH, {"episode": 1}, 60, 0.05), WORKED + " held"),
    attack("a film by GET", ask("GET", WATCH, times=20, key="the-attackers-key"), "405 404 429"),
)
