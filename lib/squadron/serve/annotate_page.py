"""The page of a study, with a server behind it or alone in a file."""

from __future__ import annotations

import base64
import hashlib
import html
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from squadron.serve.annotate import Assigned, OpenAnswer, OpenRequest, Record, RecordAnswer
from squadron.serve.service import Route

_PAGE = Path(__file__).with_name("annotate.html")


@dataclass(frozen=True)
class StudyPage:
    """What is a study's own on its page. `show` is the body of a function of JavaScript, `(shown, parent, make)`, that
    builds what is shown of an item below an element; `style` is CSS. Neither holds anything of the items.

    `choices` are answers, each with the word on its button; key 1 is the first.
    """

    title: str
    intro: str
    choices: Mapping[str, str]
    show: str
    style: str = ""


def study_page(page: StudyPage) -> str:
    """The page with a server behind it: it asks for its items."""
    return _write(page, {})


def study_file(page: StudyPage, readers: Mapping[str, Sequence[Assigned]]) -> str:
    """A page that needs no server: it holds what each of these readers is to see, and gives their records as files,
    which may be laid into the folder of the study's log."""
    items: dict[str, int] = {}
    shown: list[list[Any]] = []
    given: dict[str, list[int]] = {}
    for reader, assigned in readers.items():
        given[reader] = []
        for item, arm in assigned:
            key = f"{arm} {item.id}"
            if key not in items:
                items[key] = len(shown)
                shown.append([item.id, arm, item.shown[arm]])
            given[reader].append(items[key])
    return _write(page, {"shown": shown, "readers": given})


def study_routes(reader: str = "reader-1") -> tuple[Route, ...]:
    """Routes to a `Study`: to its items, and for its records. `reader` is the one that the server's page offers."""
    return (
        Route("/v1/study/open", "open", OpenRequest, OpenAnswer, "the items of a reader", example={"reader": reader}),
        Route("/v1/study/record", "record", Record, RecordAnswer, "what a reader said to an item"),
    )


def _write(page: StudyPage, data: Mapping[str, Any]) -> str:
    """The page. Its policy lets the one script run that stands here, and nothing else, whatever items hold."""
    head, script = _PAGE.read_text(encoding="utf-8").split("__SCRIPT__\n")
    script = script.replace("__SHOW__", page.show)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; connect-src 'self'"
    held = json.dumps({**data, "choices": list(page.choices.items())}).replace("<", "\\u003c")
    texts = {
        "__POLICY__": policy, "__TITLE__": html.escape(page.title), "__INTRO__": html.escape(page.intro),
        "__STYLE__": page.style, "__DATA__": held,
    }  # fmt: skip
    for name, text in texts.items():  # the data last: what it holds is left as it is
        head = head.replace(name, text)
    return f"{head}{script}</script>\n</html>\n"
