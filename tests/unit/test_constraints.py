"""The files of hashes hold what the pins say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

PLACE = Path(__file__).resolve().parents[2] / "constraints"


@pytest.mark.parametrize(("name", "without"), [("cpu", r"torch|triton|nvidia-[a-z0-9-]+"), ("gpu", "")])
def test_every_pin_has_hashes(name: str, without: str) -> None:
    pins = re.findall(r"^([a-z0-9].*?==\S+.*)$", (PLACE / f"{name}.txt").read_text(), re.M)
    expected = [pin for pin in pins if not re.fullmatch(without, pin.partition("==")[0])]
    text = (PLACE / f"{name}-hashes.txt").read_text().replace(" \\\n", "\n")
    held = re.findall(r"^([a-z0-9].*?==\S+.*)\n((?:    --hash=sha256:[0-9a-f]{64}\n)+)", text, re.M)
    assert len(expected) > 200 and [pin.strip() for pin, _ in held] == expected
