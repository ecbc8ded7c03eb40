"""Tools and queries made up by rule: three categories, each tool an action on an object.

A query says the action and the object in other words than the tool's documentation more often than not, as people do;
its instruction says somewhat more of what the tool does. So what the methods find here has the direction of real sets,
not their size.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from itertools import product

from squadron.methods.toolret.config import WorldConfig
from squadron.methods.toolret.datasets import Asked, Tool

Words = tuple[str, str, str]
"""In a tool's documentation, in a query in the same word, and in a query in other words."""

OBJECTS: dict[str, tuple[Words, ...]] = {
    "web": (
        ("weather", "the weather", "how warm it gets"), ("flight", "a flight", "a plane ticket"),
        ("recipe", "a recipe", "something to cook"), ("stock", "a stock", "shares of a company"),
        ("song", "a song", "music to listen to"), ("hotel", "a hotel", "a place to stay the night"),
        ("news", "the news", "what happened in the world"), ("film", "a film", "something to watch tonight"),
        ("restaurant", "a restaurant", "somewhere to eat out"), ("train", "a train", "a ride by rail"),
        ("book", "a book", "something good to read"), ("job", "a job", "an open position"),
        ("doctor", "a doctor", "someone to look at my cough"), ("parcel", "a parcel", "the package I sent"),
    ),
    "code": (
        ("matrix", "a matrix", "a grid of numbers"), ("list", "a list", "these items in a row"),
        ("string", "a string", "a piece of text"), ("date", "a date", "a day of the calendar"),
        ("polynomial", "a polynomial", "a sum of powers of x"), ("graph", "a graph", "nodes joined by edges"),
        ("table", "a table", "rows and columns"), ("image", "an image", "the pixels of a photo"),
        ("triangle", "a triangle", "a shape with three corners"), ("fraction", "a fraction", "one number over another"),
        ("file", "a file", "a document on my disk"), ("tree", "a tree", "parents with their children"),
        ("vector", "a vector", "an arrow in space"), ("regression", "a regression", "a line through my points"),
    ),
    "customized": (
        ("speech", "speech", "what a person says aloud"), ("caption", "a caption", "words under a picture"),
        ("translation", "a translation", "the same in another language"), ("summary", "a summary", "the gist"),
        ("sentiment", "the sentiment", "whether they liked it"), ("face", "a face", "who is on the photo"),
        ("depth", "the depth", "how far away things are"), ("segmentation", "a segmentation", "the outline of things"),
        ("video", "a video", "a moving picture"), ("document", "a document", "a scanned page"),
        ("email", "an email", "a message to my boss"), ("chart", "a chart", "my figures drawn"),
        ("reminder", "a reminder", "a nudge so I do not forget"), ("playlist", "a playlist", "one track after another"),
    ),
}  # fmt: skip
ACTIONS: dict[str, tuple[Words, ...]] = {
    "web": (
        ("search", "search for", "look around for"), ("book", "book", "reserve"), ("compare", "compare", "weigh up"),
        ("track", "track", "keep an eye on"), ("recommend", "recommend", "suggest"), ("review", "review", "rate"),
        ("cancel", "cancel", "call off"), ("share", "share", "send a friend"), ("price", "price", "tell the cost of"),
        ("forecast", "forecast", "tell ahead about"), ("translate", "translate", "put into French"),
        ("locate", "locate", "tell me where to find"), ("archive", "archive", "keep for later"),
        ("rank", "rank", "order from best to worst"),
    ),
    "code": (
        ("sort", "sort", "put in order"), ("invert", "invert", "turn around"),
        ("count", "count", "say how many there are in"),
        ("validate", "validate", "check that nothing is wrong with"), ("merge", "merge", "make one of two of"),
        ("split", "split", "cut into parts"), ("render", "render", "draw"), ("compress", "compress", "make smaller"),
        ("sample", "sample", "pick at random from"), ("normalize", "normalize", "bring to a common scale"),
        ("parse", "parse", "make sense of the raw form of"), ("encrypt", "encrypt", "hide from strangers"),
        ("differentiate", "differentiate", "find the rate of change of"), ("export", "export", "write to disk"),
    ),
    "customized": (
        ("generate", "generate", "come up with"), ("detect", "detect", "find out about"), ("edit", "edit", "change"),
        ("classify", "classify", "say which kind it is of"), ("transcribe", "transcribe", "write down"),
        ("enhance", "enhance", "make clearer"), ("schedule", "schedule", "plan for next week"),
        ("delete", "delete", "get rid of"), ("annotate", "annotate", "add remarks to"),
        ("convert", "convert", "bring into another form"), ("play", "play", "let me hear or see"),
        ("explain", "explain", "tell me in plain words about"), ("anonymize", "anonymize", "take the names out of"),
        ("score", "score", "give marks to"),
    ),
}  # fmt: skip
_ASKS = ("I want to {0} {1}.", "Could you {0} {1} for me?", "My sister asked me to {0} {1}; how?", "Please {0} {1}.")
_SAME, _TOLD = 0.35, 0.6
"""The share of a query's parts, and of an instruction's, that are said in the tool's own words."""


def make_world(config: WorldConfig) -> Iterator[tuple[str, list[Tool], list[Asked]]]:
    """Of each category its tools and queries."""
    draw = random.Random(config.seed)
    shares = [(config.tools + n) // 3 for n in range(3)], [(config.queries + n) // 3 for n in range(3)]
    for category, tools, queries in zip(OBJECTS, *shares, strict=True):
        pairs = list(product(ACTIONS[category], OBJECTS[category]))
        chosen = draw.sample(pairs, min(tools, len(pairs)))
        made = [_tool(category, number, action, thing) for number, (action, thing) in enumerate(chosen)]
        asked = [_query(category, number, chosen, made, draw) for number in range(queries)]
        yield category, made, asked


def _tool(category: str, number: int, action: Words, thing: Words) -> Tool:
    name = f"{action[0]}_{thing[0]}"
    documentation = {
        "name": name,
        "description": f"{action[0].capitalize()} {thing[1]} by the {category} service and return the result.",
        "parameters": {thing[0]: {"type": "string", "description": f"what to {action[0]}"}},
    }
    identifier = f"{category}_tool_{number}"
    return Tool(identifier, name, json.dumps(documentation), True, identifier, f"made up, {identifier}")


def _query(
    category: str, number: int, chosen: list[tuple[Words, Words]], made: list[Tool], draw: random.Random
) -> Asked:
    """One that needs one tool, or two that act on the same object."""
    first = draw.randrange(len(chosen))
    thing = chosen[first][1]
    others = [place for place, (_, one) in enumerate(chosen) if one == thing and place != first]
    places = [first, draw.choice(others)] if others and draw.random() < 0.25 else [first]
    actions = [chosen[place][0] for place in places]
    done = " and ".join(one[1] if draw.random() < _SAME else one[2] for one in actions)
    text = draw.choice(_ASKS).format(done, thing[1] if draw.random() < _SAME else thing[2])
    named = " and ".join(one[1] if draw.random() < _TOLD else one[2] for one in actions)
    what = thing[1] if draw.random() < _TOLD else thing[2]
    instruction = f"Given a `{thing[0]}` task, retrieve tools that {named} {what} and return the result."
    labels = {made[place].id: 1 for place in places}
    name = f"{category}_query_{number}"
    return Asked(name, text, instruction, labels, category, f"made up, {name}")
