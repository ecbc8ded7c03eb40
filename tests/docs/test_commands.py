"""Every command that a page, a docstring, a message or a configuration names can be given as it stands there."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from squadron.core import registry
from squadron.core.cli import _parser, parse
from squadron.core.config import load_config
from squadron.core.errors import ConfigError
from squadron.core.profile import find_profile
from squadron.serve.spec import ServeSpec
from squadron.tune.command import make_spec
from squadron.tune.sweep import check

ROOT = Path(__file__).resolve().parents[2]
COMMAND = re.compile(r"(?:^|.* -- )\s*#?\s*((?:squadron [a-z-]|python jobs/\w+\.py\b).*)")
INLINE = re.compile(r"`((?:squadron|python jobs/\w+\.py) [^`]+)`")
Command = tuple[bool, str]
"""Whether it stands within a sentence, where it may lack its job, and the command."""


def commands(path: Path) -> list[Command]:
    """The commands of a file."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        texts = lines = list(_texts(ast.parse(text)))
    elif path.suffix == ".md":
        texts, lines = [text], re.findall(r"```bash\n(.*?)```", text, re.S)
    else:
        texts, lines = [text], [text]
    whole = [
        (False, found.group(1))
        for block in lines
        for line in block.replace("\\\n", " ").splitlines()
        if (found := COMMAND.match(line))
    ]
    return whole + [(True, inline) for one in texts for inline in INLINE.findall(one.replace("\n", " "))]


def _texts(node: ast.AST) -> Iterator[str]:
    """All strings but those that are put together of parts."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    if not isinstance(node, ast.JoinedStr):
        for child in ast.iter_child_nodes(node):
            yield from _texts(child)


SOURCES = {
    str(path.relative_to(ROOT)): path
    for pattern in (
        "*.md",
        "docs/**/*.md",
        "lib/**/*.md",
        "lib/**/*.py",
        "jobs/*.py",
        "configs/**/*.yaml",
        "cluster/**/*",
    )
    for path in sorted(ROOT.glob(pattern))
    if path.is_file() and commands(path)
}


@pytest.mark.parametrize("name", SOURCES)
def test_commands_are_understood(name: str) -> None:
    """Jobs, configurations, profiles and settings exist. Files of the reader's own are spared."""
    for inline, command in commands(SOURCES[name]):
        words = shlex.split(command.partition(" | ")[0], comments=True)
        if inline and "·" in words:
            assert all(_is_command(word) for word in words[1:] if word != "·"), command
            continue
        if words[0] == "python":
            words[:2] = ["squadron", "run", Path(words[1]).stem]
        words = [word for word in words if word != "…" and not word.endswith("=…") and "<" not in word]
        if inline and len(words) < 3:
            assert all(_is_command(word) or word.startswith("--") for word in words[1:]), command
        else:
            _check(words[1:])


def test_the_pages_of_methods_and_capabilities_show_commands() -> None:
    assert {str(path.relative_to(ROOT)) for path in [ROOT / "README.md", *ROOT.glob("lib/**/README.md")]} <= set(
        SOURCES
    )


def _is_command(word: str) -> bool:
    """Whether `squadron` has this command; argparse leaves with 0 where it shows a command's help."""
    with pytest.raises(SystemExit) as left:
        _parser().parse_args([word, "--help"])
    return left.value.code == 0


def _check(words: list[str]) -> None:
    options = parse(_parser(), words)
    if words[0] == "serve":
        load_config(ServeSpec, overrides=[word for word in options.settings if "=" in word])
    if words[0] not in ("plan", "rehearse", "run", "sweep"):
        return
    job, settings = registry.load_job(options.job), list(options.settings)
    named = settings.pop(0) if settings and "=" not in settings[0] else None
    own = named is not None and named.endswith(".yaml") and not named.startswith("configs/")
    config = load_config(job.config_type, None if own else registry.find_config(job.name, named), settings)
    find_profile(options.profile)
    if words[0] == "sweep":
        check(make_spec(job, config.model_dump(mode="json"), options))


def test_a_command_that_cannot_be_given_is_found(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="hours"):
        _check(["run", "flame", "hours"])
    page = tmp_path / "page.md"
    page.write_text(
        "`squadron run flame hours`\n```bash\nray job submit -- python jobs/flame.py paper --workers \\\n 2\n```\n"
    )
    assert commands(page) == [
        (False, "python jobs/flame.py paper --workers   2"),
        (True, "squadron run flame hours"),
    ]


BENCH = re.compile(r"`(?:python tests/bench/)?(bench_\w+\.py)((?: \w+)*)`")
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("lib/**/*.md")])


def _unknown_parts(text: str) -> list[str]:
    """Scripts of `tests/bench` that a page names and that are not there, and parts that a script does not know."""
    missing = []
    for script, parts in BENCH.findall(text):
        path = ROOT / "tests" / "bench" / script
        tree = ast.parse(path.read_text(encoding="utf-8")) if path.is_file() else None
        known = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)} if tree else set()
        known |= set(_texts(tree)) if tree else set()
        missing += [script] if tree is None else [f"{script} {part}" for part in parts.split() if part not in known]
    return missing


def _figures(text: str) -> Iterator[tuple[str, str]]:
    """Every row of the tables that say how a figure is rerun, and what it says."""
    told = False
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip()[1:-1].split("|")]
        told = (told or cells[-1] == "rerun by") if line.startswith("|") else False
        if told and cells[-1] != "rerun by" and not re.fullmatch(":?-+:?", cells[-1]):
            yield line, cells[-1]


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_figure_names_a_command_that_is_there(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert not _unknown_parts(text)
    for line, rerun in _figures(text):
        named = re.findall(r"`([^`]+)`", rerun)
        assert named or rerun.startswith(("no command", "not run")), line
        for one in named:
            assert one.startswith(("bench_", "squadron ", "python ", "make ")) or (ROOT / one).exists(), line


def test_a_part_that_a_script_does_not_know_is_found() -> None:
    assert _unknown_parts("`bench_cli.py`, `bench_flames.py` and `python tests/bench/bench_serve.py chats chat`") == [
        "bench_flames.py",
        "bench_serve.py chat",
    ]
    table = "| what | rerun by |\n|---|---|\n| time | `bench_cli.py` |\n| memory | |\n\n| other | 3 |"
    assert [rerun for _, rerun in _figures(table)] == ["`bench_cli.py`", ""]
