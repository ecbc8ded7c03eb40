"""The house keeps its rules: pages are true, every method's page has the same parts."""

from __future__ import annotations

import ast
import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LIB = ROOT / "lib" / "squadron"
METHODS = sorted(path for path in (LIB / "methods").iterdir() if (path / "config.py").exists())
CAPABILITIES = [LIB / name / "README.md" for name in ("tune", "serve")]
PAGES = [ROOT / "README.md", *CAPABILITIES, *(method / "README.md" for method in METHODS)]
ALL_PAGES = [*PAGES, *sorted((ROOT / "docs").glob("*.md"))]
HEADINGS = [
    "What it does", "The one command", "What comes out", "Published and measured", "Where we deviate and why",
    "Bad input",
]  # fmt: skip
CELL_WORDS, FIRST_SCREEN = 25, 40


def _anchors(page: Path) -> set[str]:
    """The names by which GitHub links to the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", ALL_PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_and_pictures_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", page.read_text()):
        if not target.startswith("http"):
            name, _, anchor = target.partition("#")
            found = page.parent / name if name else page
            assert found.exists(), f"{page.name} names {target}"
            assert not anchor or anchor in _anchors(found), f"{page.name} names {target}"


@pytest.mark.parametrize("page", ALL_PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_cell_of_a_table_is_short(page: Path) -> None:
    """A cell holds a figure; its conditions stand under the table."""
    text = re.sub(r"\]\([^)]*\)", "]", page.read_text())
    cells = [cell for line in text.splitlines() if line.startswith("|") for cell in line.split("|")]
    assert not [cell for cell in cells if len(cell.split()) > CELL_WORDS]


@pytest.mark.parametrize("page", ALL_PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_what_reruns_a_figure_exists(page: Path) -> None:
    """Scripts, their parts, and files of tests that a page names in code."""
    for code in re.findall(r"`([^`\n]+)`", page.read_text()):
        words = code.removeprefix("python tests/bench/").split()
        if re.fullmatch(r"bench_\w+\.py", words[0]):
            script = ROOT / "tests" / "bench" / words[0]
            assert script.exists(), f"{page.name} names {code}"
            assert all(f"def {part}(" in script.read_text() for part in words[1:]), f"{page.name} names {code}"
        elif re.fullmatch(r"tests/[\w/]+\.py", words[0]):
            assert (ROOT / words[0]).exists(), f"{page.name} names {code}"


@pytest.mark.parametrize("page", ALL_PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_python_on_the_pages_parses_and_imports_what_is_there(page: Path) -> None:
    for code in re.findall(r"```python\n(.*?)```", page.read_text(), re.S):
        for node in ast.walk(ast.parse(code)):
            module = node.module or "" if isinstance(node, ast.ImportFrom) else ""
            if module.startswith("squadron.") and ".trimmed_mean" not in module:  # that one is the page's own example
                assert all(hasattr(importlib.import_module(module), name.name) for name in node.names), module


def test_every_figure_on_the_page_of_figures_says_what_reruns_it() -> None:
    page = (ROOT / "docs" / "measured.md").read_text()
    rows = [line.strip("|").split("|") for line in page.splitlines() if line.startswith("|")]
    figures = [row for row in rows if row[0].strip() not in ("what", "---")]
    assert figures
    for row in figures:
        last = row[-1].strip()
        assert re.match(r"`(bench_|tests/|squadron run )", last) or last == "no command", row


def test_the_first_screen_says_what_for_and_how() -> None:
    """The two commands, a picture, and what a person wants to do, with every method in it."""
    lines = (ROOT / "README.md").read_text().splitlines()
    screen = "\n".join(lines[:FIRST_SCREEN])
    assert "\nmake demo " in screen and "\nmake test " in screen
    assert re.search(r"!\[[^\]]+\]\([^)]+\)", screen)
    assert "| what you want to do | one command |" in screen
    rows = [line for line in lines if re.match(r"\| \[.+?\]\(.+?\) \| `squadron .+?` \|", line)]
    linked = {target for row in rows for target in re.findall(r"\(lib/squadron/methods/(\w+)/README\.md\)", row)}
    assert linked == {method.name for method in METHODS}


@pytest.mark.parametrize("method", METHODS, ids=lambda path: path.name)
def test_every_method_has_the_same_page(method: Path) -> None:
    text = (method / "README.md").read_text()
    assert [line[3:] for line in text.splitlines() if line.startswith("## ")] == HEADINGS
    assert re.search(r"!\[[^\]]+\]\([^)]+\)", text), "the page shows a picture of what comes out"
