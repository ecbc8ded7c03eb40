"""Answers to mathematical problems: read from solutions, and verified by what they mean.

Plain numbers and words are compared here, exactly and in microseconds; everything else by math-verify.
"""

from __future__ import annotations

import atexit
import json
import os
import re
import signal
import subprocess
import sys
import threading
from fractions import Fraction
from functools import lru_cache

from squadron.core.errors import WorkerError
from squadron.data.arithmetic import MARKER

_LONGEST = 1000  # characters; no answer of a benchmark comes near
_SECONDS = 3.0  # of processor time, so that a busy machine gives the same verdicts
_MEMORY = 2 << 30  # bytes
_PATIENCE = 120.0  # seconds until a process that says nothing is given up


def final_answer(text: str) -> str | None:
    r"""The answer that a worked solution ends with, or None.

    It is the content of the last `\boxed{…}` or `\fbox{…}` whose braces are closed, or else the line behind the last
    `####`.
    """
    boxes, opened = dict[int, str](), list[tuple[bool, int]]()
    for token in _BOXES.finditer(text):
        if token["single"]:
            boxes[token.start("single")] = token["single"]
        elif token["box"] or token["open"]:
            opened.append((bool(token["box"]), token.end()))
        elif token["close"] and opened:
            boxed, start = opened.pop()
            if boxed:
                boxes[start] = text[start : token.start()]
    if boxes:
        return boxes[max(boxes)].strip() or None
    _, found, rest = text.rpartition(MARKER)
    lines = rest.strip().splitlines() if found else []
    return lines[0].strip() if lines else None


def is_right(solution: str, reference: str) -> bool:
    """Whether a solution's final answer equals the reference, which is a bare answer or a worked solution.

    A solution without a final answer is wrong. Equality and errors are those of `same_answer`.
    """
    answer = final_answer(solution)
    return answer is not None and same_answer(answer, final_answer(reference) or reference)


def same_answer(answer: str, reference: str) -> bool:
    r"""Whether two bare answers mean the same: `1,000` and `1000`, `0.5` and `\frac{1}{2}`, `2(x+1)` and `2x+2`.

    Units and currencies are not compared. `50%` equals both 50 and 0.5. A decimal fraction equals an expression that
    agrees in six decimals, and another decimal fraction only if it is the same number. What math-verify cannot decide
    within 3 s of processor time and 2 GiB counts as different. Safe in any thread and in any process.

    Raises WorkerError if the process in which math-verify runs cannot be started or is killed from outside.
    """
    if max(len(answer), len(reference)) > _LONGEST:
        return answer == reference
    answer, reference = _tidy(answer), _tidy(reference)
    if answer == reference:
        return answer != ""
    if (given := _number(answer)) and (wanted := _number(reference)):
        return given[0] == wanted[0] or given[1] == wanted[1]
    if (said := _literal(answer)) and (meant := _literal(reference)):
        return said == meant
    return _verified(answer, reference)


def is_bare(text: str) -> bool:
    """Whether a text is an answer alone, and no sentence or worked solution that lacks its final answer."""
    if not 0 < len(text) <= _LONGEST or MARKER in text or r"\boxed" in text:
        return False
    if _number(text) or (_literal(text) and len(text.split()) <= 5):
        return True
    return ("\n" not in text or r"\begin" in text) and not _SENTENCE.search(_WRAPPED.sub("", text))


def _number(text: str) -> tuple[Fraction, Fraction] | None:
    """A plain number without its commas, currency and unit; of a percentage, also the hundredth of it."""
    match = _NUMBER.fullmatch(_plain(text))
    if match is None:
        return None
    digits = Fraction(re.sub(r"[,\s]", "", match["sign"] + match["digits"]))
    number = digits * 10 ** _SCALES[(match["scale"] or "").lower()]
    return number, number / 100 if match["percent"] else number


def _literal(text: str) -> str | None:
    """Words, a time of day or a number in a base, in one spelling; None for anything else.

    math-verify takes bare words for products of letters, so that anagrams are equal, and overlooks bases, a.m. and p.m.
    """
    plain = _plain(text)
    return re.sub(r"[\s.{}]", "", plain).casefold() if _LITERAL.fullmatch(plain) else None


def _tidy(text: str) -> str:
    """A text without what stands around an answer: spaces, asterisks, LaTeX delimiters, the full stop."""
    text = _DELIMITED.sub(r"\1", text.strip("* \t\n").translate({ord("−"): "-", ord("–"): "-"}))
    return re.sub(r"(?<!\\right)[.*\s]+$", "", text.lstrip())


def _plain(text: str) -> str:
    """A text without the LaTeX around its words and numbers, and without currency signs."""
    text = re.sub(r"\\!\s*", "", _WRAPPED.sub(r" \1 ", text)).replace("{,}", ",").replace(r"\%", "%")
    text = re.sub(r"\\[,;: ]|~", " ", re.sub(r"\\?[$£€¥₹]", "", text))
    return " ".join(text.split()).rstrip(".")


_BOXES = re.compile(
    r"\\(?:boxed|fbox)\s*(?:(?P<box>\{)|(?P<single>[^\s{}$\\]+))|\\.|(?P<open>\{)|(?P<close>\})", re.DOTALL
)
_WRAPPED = re.compile(r"\\(?:text(?:bf|it|rm|normal)?|math(?:rm|bf|it)|mbox)\s*\{([^{}]*)\}")
_DELIMITED = re.compile(r"(?:\$+|\\\(|\\\[)(.+?)(?:\$+|\\\)|\\\])", re.DOTALL)
_SENTENCE = re.compile(r"(?:[^\W\d_]{2,}[\s,]+){2}[^\W\d_]{2,}")
_SCALES = {"": 0, "hundred": 2, "thousand": 3, "million": 6, "billion": 9, "trillion": 12}
# A word that changes a number is no unit, nor are one or two letters, which may be variables, unless they are known.
_UNIT = r"""
    (?!(?:and|plus|minus|times|over|squared|cubed|factorial|choose|mod|root|sqrt|sin|cos|tan|log|exp|half|halves|
        hundreds?|thousands?|[a-z]*illions?|(?:thir|four|fif|six|seven|eigh|nin|ten|hundred|thousand)(?:d|th)s?)\b)
    (?:[^\W\d_]{3,}|cm|mm|km|kg|mg|ml|ft|in|lb|oz|hr|mi|yd|sq|of|an)\.?(?:/[^\W\d_]+)?(?:\^?\{?[23²³]\}?)?
"""
_NUMBER = re.compile(
    rf"""
    (?P<sign>[-+]?)\s*
    (?P<digits>(?=\.?\d)(?:\d{{1,3}}(?:[,\s]\d{{3}})+|\d*)(?:\.\d*)?(?:e[-+]?\d{{1,3}})?)
    (?:\s*(?P<scale>hundred|thousand|million|billion|trillion))?
    (?:\s*(?P<percent>%|percent|pct)|\s*°[CF]?)?
    (?:\s+{_UNIT})*
    """,
    re.VERBOSE | re.IGNORECASE,
)
_LITERAL = re.compile(
    r"""
    (?=.*[^\W\d_]{3})[^\W\d_]+(?:[\s'-]+[^\W\d_]+)*  # words
    | \d{1,2}(?::\d\d)?\s*[ap]\.?\s?m                # 10:30 a.m.
    | \d[\da-f]*_\{?\d+\}?                           # 1011_2
    """,
    re.VERBOSE | re.IGNORECASE,
)


@lru_cache(maxsize=4096)
def _verified(answer: str, reference: str) -> bool:
    return _verifier.ask(answer, reference)


class _Verifier:
    """math-verify in a process of its own, which the kernel ends when an answer takes too much.

    The library's own time limits are handlers of signals in Python: they fail outside of the main thread, and do not
    end a power that is being computed. A process ends at any time, whatever thread asks.
    """

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Leave the process to its other owner, as after a fork."""
        self.lock = threading.Lock()
        self.process: subprocess.Popen[str] | None = None

    def ask(self, answer: str, reference: str) -> bool:
        with self.lock:
            verdict, code = "", None
            try:
                if self.process is None or self.process.poll() is not None:
                    self._start()
                verdict = self._exchange(json.dumps([answer, reference]) + "\n")
            finally:  # also after an interrupt: a late verdict must not be taken for that of the next answer
                if not verdict:
                    code = self.stop()
        if code == -signal.SIGKILL:
            raise WorkerError(
                f"the process that verifies answers was killed, or said nothing for {_PATIENCE:.0f} s",
                where=f"verifying {answer[:80]!r}",
                fix="look whether this machine is short of memory or overloaded",
            )
        return verdict == "1\n"

    def stop(self) -> int | None:
        """End the process, and return what it ended with."""
        process, self.process = self.process, None
        if process is None:
            return None
        process.kill()
        with process:
            return process.wait()

    def _start(self) -> None:
        self.stop()
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-c", "from squadron.data.answers import _serve; _serve()"],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # an interrupt from the keyboard is for its owner
        )
        if not self._exchange():
            raise WorkerError("math-verify could not be started", fix="see above why: pip install math-verify?")

    def _exchange(self, request: str = "") -> str:
        """Send a line and return the line that comes back; empty if the process ends or says nothing."""
        from multiprocessing.connection import wait

        assert self.process is not None and self.process.stdin is not None and self.process.stdout is not None
        try:
            self.process.stdin.write(request)
            self.process.stdin.flush()
        except BrokenPipeError:
            return ""
        return self.process.stdout.readline() if wait([self.process.stdout.fileno()], _PATIENCE) else ""


def _serve() -> None:
    """Answer each line of input, an answer and its reference, with 1 or 0: what `_Verifier` runs in its process."""
    import logging
    import resource

    from math_verify import LatexExtractionConfig, parse, verify

    logging.disable()
    replies, sys.stdout = sys.stdout, sys.stderr
    _, most = resource.getrlimit(resource.RLIMIT_AS)
    memory = _MEMORY if most == resource.RLIM_INFINITY else min(_MEMORY, most)
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    signal.signal(signal.SIGPROF, signal.SIG_DFL)  # ends the process, also in the midst of one long operation
    extraction = [LatexExtractionConfig(boxed_match_priority=0)]  # LaTeX alone: the other kinds take parts of a text
    print("ready", file=replies, flush=True)
    for line in sys.stdin:
        signal.setitimer(signal.ITIMER_PROF, _SECONDS)
        try:
            boxes = (rf"\boxed{{{_spaced(text)}}}" for text in json.loads(line))
            answer, reference = (parse(box, extraction, parsing_timeout=None) for box in boxes)
            right = verify(reference, answer, timeout_seconds=None, allow_set_relation_comp=True)
        except Exception:  # on what nobody can read the libraries raise anything, MemoryError among it
            right = False
        signal.setitimer(signal.ITIMER_PROF, 0)
        print(int(right), file=replies, flush=True)


def _spaced(text: str) -> str:
    """Numbers with a space between them, in LaTeX: math-verify would take the product of `3 1/2`, the sum of `3 4`."""
    text = re.sub(r"(?<![\d.])(\d+)\s+(\d+)/(\d+)", r"\1\\frac{\2}{\3}", text)
    return re.sub(r"(?<=\d)\s+(?=\d)", ", ", text)


_verifier = _Verifier()
atexit.register(_verifier.stop)
os.register_at_fork(after_in_child=_verifier.forget)
