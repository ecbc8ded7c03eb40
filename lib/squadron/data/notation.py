r"""Answers as people and models write them, in the LaTeX that math-verify reads.

math-verify takes `3 1/2` for a product, `17 18` for a sum, `1e6` for 6e, `pi` and `cups` for products of letters, and
cannot read `½`, `√2`, `x²` or `\frac\pi2`.
"""

from __future__ import annotations

import re
import unicodedata

WRAPPED = re.compile(r"\\(?:text(?:bf|it|rm|normal)?|math(?:rm|bf|it)|mbox)\s*\{([^{}]*)\}")
_DELIMITED = re.compile(r"(?:\$+|\\\(|\\\[)(.+?)(?:\$+|\\\)|\\\])", re.DOTALL)

# Signs that are commands of LaTeX; full-width forms are those of ASCII.
_SIGNS = str.maketrans(
    {"−": "-", "–": "-", "⁄": "/", "∕": "/", "·": r"\cdot ", "⋅": r"\cdot ", "∞": r"\infty ", "π": r"\pi "}
    | {chr(code): chr(code - 0xFEE0) for code in range(0xFF01, 0xFF5F)}
)
_FRACTION, _RAISED, _LOWERED = re.compile(r"\s?([¼-¾⅐-⅞↉])"), re.compile("[⁰¹²³⁴-⁹⁺⁻]+"), re.compile("[₀-₉]+")
_ROOT = re.compile(
    r"(?:√|(?<![\\A-Za-z])sqrt)\s*(?:(\d+(?:\.\d+)?|[^\W\d_](?![^\W\d_]))|\(((?:[^()√]|\([^()√]*\))*)\)|(?=\{))"
)

_DEEPEST = 3

_POWER = r"(?:\s?\^?\{?[23²³]\}?)?"
_SHORT = rf"(?:[munkc]?[mgs]|[nkM]?[JNWV]|[mkM]?Hz|[mc]?l|min|mol|hr?|ft|mi|in|lb|oz|yd|rad){_POWER}(?![^\W\d_])"
# A word that changes a number is no unit, nor are one or two letters, which may be variables, unless they are known.
_WORD = rf"""
    (?!(?:and|plus|minus|percent(?:age)?|pct|times|over|squared|cubed|factorial|choose|mod|root|sqrt|sin|cos|tan|log|exp|half|halves|
        hundreds?|thousands?|[a-z]*illions?|(?:thir|four|fif|six|seven|eigh|nin|ten|hundred|thousand)(?:d|th)s?)\b)
    (?:[^\W\d_]{{3,}}|cm|mm|km|kg|mg|ml|ft|in|lb|oz|hr|mi|yd|sq|of|an)\.?(?:/[^\W\d_]+)?{_POWER}
"""
UNITS = rf"(?:\s*{_SHORT}\s?/\s?{_SHORT}|\s+{_WORD})*"
"""Units and other words behind a number, in a pattern that is verbose and ignores case: ` cups a day`, `m/s^2`."""

_QUANTITY = re.compile(
    rf"""
    (?P<value>
        (?:[\d\s.,/^{{}}()*+-]|(?<=[\d.])e(?=[-+]?\d)|x(?=\s*10\s?\^)|\\(?:[dtc]?frac|sqrt|pi|times|cdot)(?![a-z]))*
        (?:[\d}})]\.?|\\pi)
    )
    (?P<unit>(?:\s?(?:°|\^\s?\{{?\\circ\s?\}}?)\s?[CF]?(?![a-z]))?{UNITS})
    """,
    re.VERBOSE | re.IGNORECASE,
)
_NAME = re.compile(r"(?<![\\A-Za-z])(pi|ln|log|exp|(?:arc)?(?:sin|cos|tan))(?![A-Za-z])")
_POWER_OF_TEN = re.compile(
    r"(?<![\w.\\])(\d+\.?\d*|\.\d+)(?:e([-+]?\d{1,3})(?![\w.])|\s*x\s*(?=10\s*\^))", re.IGNORECASE
)
_GROUP, _ONE = r"\{(?:[^{}]|\{[^{}]*\})*\}", r"\\(?![dtc]?frac|sqrt|text|math|left)[A-Za-z]+|[^\W_]"
_PAIR = re.compile(rf"\\([dtc]?frac|[dt]?binom)\s*(?:({_GROUP})|({_ONE}))\s*(?:({_GROUP})|({_ONE}))")
_MIXED = re.compile(r"(?<![\d.,^_])(?<!\\sqrt)(?<!\\sqrt\s)(\d+)\s+(\d+)\s?/\s?(\d+)(?![\d.])")
_PLAIN = r"\d+(?:\.\d+)?"
_LIST = re.compile(rf"((?:^|[,;(\[]|\\\{{)\s*)({_PLAIN}(?:\s+{_PLAIN})+)(?=\s*(?:$|[,;)\]]|\\\}}))")


def tidy(text: str) -> str:
    """A text without what stands around an answer, which is spaces, asterisks, LaTeX delimiters and the full stop, and
    with commands in place of the signs that LaTeX has commands for."""
    text = _LOWERED.sub(lambda run: f"_{{{_digits(run[0])}}}", text.translate(_SIGNS))
    text = _FRACTION.sub(lambda sign: r"\frac{{{}}}{{{}}}".format(*_digits(sign[1]).split("⁄")), text)
    text = _RAISED.sub(lambda run: f"^{{{_digits(run[0])}}}", text)
    for _ in range(_DEEPEST):  # roots of roots, from the innermost
        text = _ROOT.sub(lambda root: rf"\sqrt{{{root[1] or root[2]}}}" if root[1] or root[2] else r"\sqrt", text)
    text = _DELIMITED.sub(r"\1", text.strip("* \t\n"))
    return re.sub(r"(?<!\\right)[.*\s]+$", "", text.lstrip())


def plain(text: str) -> str:
    """A tidy text without the LaTeX around its words and numbers, and without currency signs."""
    text = re.sub(r"\\!\s*", "", WRAPPED.sub(r" \1 ", text)).replace("{,}", ",").replace(r"\%", "%")
    text = re.sub(r"\\[,;: ]|~", " ", re.sub(r"\\?[$£€¥₹]", "", text))
    return " ".join(text.split()).rstrip(".")


def to_latex(text: str) -> str:
    r"""A tidy text as math-verify reads it.

    Units behind a number are left out, and `3 1/2` is a mixed number, `1e6` and `5 x 10^3` are powers of ten, `pi` and
    `sin` are what they name, arguments without braces get theirs, and numbers in a row with nothing but spaces between
    them are a list.
    """
    quantity = _QUANTITY.fullmatch(plain(text))
    text = quantity["value"] if quantity is not None and quantity["unit"] else re.sub(r"[£€¥₹]", "", text)
    text = re.sub(r"(?<=\d)\.(?![\d.\\(])", "", text)
    text = _NAME.sub(r"\\\1 ", text.replace("**", "^").replace("°", r"^\circ "))
    text = re.sub(r"\\log\s*_10(?!\d)", r"\\log_{10} ", text)
    text = _POWER_OF_TEN.sub(lambda ten: rf"{ten[1]}\times 10^{{{ten[2]}}}" if ten[2] else rf"{ten[1]}\times ", text)
    text = _PAIR.sub(lambda pair: rf"\{pair[1]}{_braced(pair[2], pair[3])}{_braced(pair[4], pair[5])}", text)
    text = _MIXED.sub(r"\1\\frac{\2}{\3}", text)
    return _LIST.sub(lambda numbers: numbers[1] + ", ".join(numbers[2].split()), text)


def _digits(signs: str) -> str:
    """Raised or lowered digits, or a fraction in one sign, as those of ASCII."""
    return unicodedata.normalize("NFKC", signs).replace("−", "-")


def _braced(group: str | None, one: str) -> str:
    return group or f"{{{one}}}"
