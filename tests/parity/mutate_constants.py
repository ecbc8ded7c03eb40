"""Published numbers changed one at a time, in memory: the checks of `test_published_constants` must find each.

    python tests/parity/mutate_constants.py

Each change is a text of a source file or a preset that is read as another one, in a process of its own.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import os
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
CHECKS = ROOT / "tests/methods/test_published_constants.py"
_ACTOR = "lib/squadron/methods/actor_reasoner"
_PAPER = "configs/self_rewarding/paper.yaml"

MUTATIONS = [
    ("configs/toolret/paper.yaml", "corpus: together", "corpus: apart"),
    ("configs/toolret/paper.yaml", "subsets: [appbench, gpt4tools", "subsets: [gpt4tools"),
    (
        "lib/squadron/methods/toolret/config.py",
        'Field(100, ge=1, description="tools',
        'Field(50, ge=1, description="tools',
    ),
    ("lib/squadron/methods/toolret/report.py", "(18.98, 21.20, 26.76", "(18.98, 12.20, 26.76"),
    ("lib/squadron/retrieval/formats.py", '"e5-toolret": Format("Instruct:', '"e5-toolret": Format("Instruction:'),
    (f"{_ACTOR}/algorithm.py", "WEIGHTS = np.array([10.0, 1.0", "WEIGHTS = np.array([5.0, 1.0"),
    (
        f"{_ACTOR}/algorithm.py",
        "ACCELERATIONS = np.array([2.0, 0.0, -4.0])",
        "ACCELERATIONS = np.array([2.0, 0.0, -2.0])",
    ),
    (f"{_ACTOR}/algorithm.py", "between_B > 5, between_B > 1,", "between_B > 5, between_B > 2,"),
    (f"{_ACTOR}/memory.py", "NEAREST = 10", "NEAREST = 20"),
    (f"{_ACTOR}/memory.py", "SAME_NUMBERS, SAME_WORDS = 4.0, 0.8", "SAME_NUMBERS, SAME_WORDS = 2.0, 0.8"),
    ("lib/squadron/sim/driving/spec.py", "(1.56, 0.0, 8.33, 3.69)", "(1.56, 0.0, 8.33, 3.96)"),
    ("lib/squadron/sim/driving/spec.py", "(2.1, 0.0, 7.79, 8.44)", "(2.1, 0.1, 7.79, 8.44)"),
    ("lib/squadron/sim/driving/spec.py", "(0.14, 0.41, 0.45)", "(0.41, 0.14, 0.45)"),
    ("lib/squadron/sim/driving/spec.py", "short_s=6.0", "short_s=5.0"),
    ("lib/squadron/search/steps.py", "Field(6, ge=2", "Field(4, ge=2"),
    ("lib/squadron/search/tree.py", "Field(\n        3, ge=0", "Field(\n        10, ge=0"),
    ("lib/squadron/methods/self_rewarding/config.py", "beta: float = Field(0.4", "beta: float = Field(0.1"),
    ("lib/squadron/methods/self_rewarding/config.py", "learning_rate=5e-7", "learning_rate=5e-6"),
    (_PAPER, "optimizer: {learning_rate: 1.0e-6}", "optimizer: {learning_rate: 5.0e-5}"),
    (_PAPER, "search: {width: 6, max_iterations: 20}", "search: {width: 4, max_iterations: 20}"),
    (_PAPER, "beta: 0.4", "beta: 0.5"),
    (_PAPER, "questions: [400, 800, 1200]", "questions: [400, 800, 800]"),
    ("configs/self_rewarding/paper-srlm.yaml", "    judgements: 3", "    judgements: 1"),
    ("lib/squadron/methods/crowdselect/config.py", "Field((1.0, 1.0, 2.0)", "Field((1.0, 1.0, 1.5)"),
    ("configs/crowdselect/paper.yaml", "weights: [1, 1, 2]", "weights: [1, 2, 1]"),
    ("configs/crowdselect/paper.yaml", "learning_rate: 1.0e-5", "learning_rate: 1.0e-4"),
    ("lib/squadron/methods/coordination/config.py", "divergence: float = Field(0.01", "divergence: float = Field(0.1"),
    ("lib/squadron/methods/coordination/config.py", "margin: float = Field(0.1", "margin: float = Field(0.5"),
    ("configs/coordination/paper.yaml", "learning_rate: 3.0e-4", "learning_rate: 1.0e-3"),
    ("configs/flame/official.yaml", "local_epochs: 50", "local_epochs: 5"),
    ("configs/finetune/babel-9b.yaml", "learning_rate: 4.0e-6", "learning_rate: 4.0e-5"),
]


def read_as(path: Path, text: str) -> None:
    """From now on the module or preset at `path` reads as `text`."""
    get_code, read_bytes = importlib.machinery.SourceFileLoader.get_code, Path.read_bytes

    def changed_code(self: Any, name: str) -> Any:
        return compile(text, self.path, "exec") if Path(self.path) == path else get_code(self, name)

    def changed_bytes(self: Path) -> bytes:
        return text.encode() if self == path else read_bytes(self)

    importlib.machinery.SourceFileLoader.get_code = changed_code  # type: ignore[method-assign]
    Path.read_bytes = changed_bytes  # type: ignore[method-assign]


def anything_wrong() -> bool:
    """Whether the checks find something."""
    spec = importlib.util.spec_from_file_location("published_constants", CHECKS)
    assert spec is not None and spec.loader is not None
    checks = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(checks)
    return next(checks.wrong(), None) is not None


def is_found(file: str, old: str, new: str) -> bool:
    """Whether the checks, in a process of their own, miss the published number. Raises ValueError where the text is not
    there once."""
    text = (ROOT / file).read_text(encoding="utf-8")
    if text.count(old) != 1:
        raise ValueError(f"{file} has {old!r} {text.count(old)} times")
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1
    try:
        read_as(ROOT / file, text.replace(old, new))
        os._exit(1 if anything_wrong() else 0)
    except BaseException as error:  # a child must not go on as its parent
        print(f"{file}: {error!r}", file=sys.stderr)
        os._exit(2)


def main() -> int:
    """Say of each change whether it was found."""
    sys.path.insert(0, str(ROOT / "lib"))
    import numpy  # noqa: F401 - once, before the forks
    import pydantic  # noqa: F401
    import pytest  # noqa: F401
    import yaml  # noqa: F401

    child = os.fork()
    if not child:
        os._exit(1 if anything_wrong() else 0)
    if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]):
        print("the checks fail before anything is changed")
        return 1
    missed = [change for change in MUTATIONS if not is_found(*change)]
    for file, old, new in missed:
        print(f"not found: {old} → {new} in {file}")
    print(f"{len(MUTATIONS) - len(missed)} of {len(MUTATIONS)} changes found")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
