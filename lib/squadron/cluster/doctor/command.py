"""`squadron doctor`: is this machine well, and is every node of the cluster?"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from squadron.cluster.doctor.finding import Finding

HELP = "check this installation, and every node of a cluster"
_MARKS = {"ok": "[green]✓[/green]", "warning": "[yellow]![/yellow]", "failed": "[red]✗[/red]"}
_NAMED = 5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What `doctor` takes."""
    parser.add_argument("--address", help="a Ray cluster whose nodes to check, such as auto (default: this machine)")
    parser.add_argument("--run", metavar="FOLDER", help="a folder or URL for runs: its speed, its room, who sees it")
    parser.add_argument("--json", action="store_true", help="print the findings as data, when all are made")


def command(options: argparse.Namespace) -> None:
    """Check this machine, or with --address every node of a cluster, and say what repairs what is not well. Ends with
    status 2 if a check fails; warnings do not."""
    from squadron.cluster.doctor.examine import examine_cluster, examine_machine
    from squadron.core import console
    from squadron.core.errors import SquadronError

    address = options.address or os.environ.get("RAY_ADDRESS")
    found = examine_cluster(address, options.run) if address else examine_machine(options.run)
    findings = list(found if options.json else _say(found, bool(address)))
    wrong = [one for one in findings if one.outcome == "failed"]
    if options.json:
        _print_json(findings)
    if wrong:
        names = sorted({one.check for one in wrong})
        raise SquadronError(
            f"{len(wrong)} of {len(findings)} checks failed: {', '.join(names)}", fix="see the lines marked ✗"
        )
    if not options.json:
        console.say("All is well. Try: squadron run flame")


def _say(found: Iterable[Finding], grouped: bool) -> Iterator[Finding]:
    """Print findings as they come; of a cluster, when all have come, those that say the same together."""
    from squadron.core import console

    if grouped:
        findings = list(found)
        for line in group(findings):
            console.say(line)
        yield from findings
        return
    for finding in found:
        console.say(_line(finding, ""))
        yield finding


def group(findings: Sequence[Finding]) -> list[str]:
    """A line for each check that is well everywhere, and one for each thing that is not, with the nodes where it is."""
    lines = []
    for check in dict.fromkeys(one.check for one in findings):
        same: dict[tuple[str, str, str], list[Finding]] = {}
        for one in (one for one in findings if one.check == check):
            key = ("ok", "", "") if one.outcome == "ok" else (one.outcome, one.text, one.fix)
            same.setdefault(key, []).append(one)
        lines += [_line(some[0], _where(some)) for some in same.values()]
    return lines


def _where(findings: Sequence[Finding]) -> str:
    """Which nodes: by name where something is wrong, and the first of many that are well by what it tells."""
    nodes = [one.node for one in findings if one.node]
    if not nodes:
        return ""
    if findings[0].outcome == "ok":
        others = f", and {len(nodes) - 1} others are well" if len(nodes) > 1 else ""
        return f" [{nodes[0]}{others}]"
    more = f" and {len(nodes) - _NAMED} more" if len(nodes) > _NAMED else ""
    return f" [{', '.join(nodes[:_NAMED])}{more}]"


def _line(finding: Finding, where: str) -> str:
    from squadron.core.console import plain

    line = f"{_MARKS[finding.outcome]} {plain(f'{finding.check}: {finding.text}{where}')}"
    return f"{line}\n    fix: {plain(finding.fix)}" if finding.fix else line


def _print_json(findings: Sequence[Finding]) -> None:
    import json

    counts = {kind: sum(one.outcome == kind for one in findings) for kind in _MARKS}
    print(json.dumps({**counts, "findings": [one.as_data() for one in findings]}, indent=1, ensure_ascii=False))
