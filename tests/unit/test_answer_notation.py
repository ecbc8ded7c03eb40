"""Answers mean the same in every notation that people and models write; nothing that math-verify reads is spoilt."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from fractions import Fraction
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from squadron.data.answers import same_answer

EXAMPLES = int(os.environ.get("SQUADRON_FUZZ", "120"))
SIGNS = {Fraction(1, 2): "½", Fraction(1, 3): "⅓", Fraction(3, 4): "¾", Fraction(5, 8): "⅝"}
UNITS = ("", " cups", " m/s", " km/h", " cups of tea", " m/s^2", r"\text{ cm}", r"\ \mathrm{kg}", " apples per day")


@st.composite
def numbers(draw: st.DrawFn) -> tuple[Fraction, str]:
    """A number and one of the ways in which it is written."""
    value = Fraction(draw(st.integers(-40, 40)), draw(st.sampled_from((1, 1, 2, 3, 4, 5, 8, 10))))
    value = draw(st.sampled_from((value, *SIGNS))) * draw(st.sampled_from((1, 1, 10, 10**6)))
    sign, (whole, part) = "-" * (value < 0), (abs(value) // 1, abs(value) % 1)
    over, under = part.numerator, part.denominator
    writings = [f"{value.numerator}/{under}", rf"{sign}\frac{{{abs(value.numerator)}}}{{{under}}}"]
    if part:
        before = f"{sign}{whole}" if whole else sign
        writings += [rf"{before}\frac{{{over}}}{{{under}}}", rf"{before}\dfrac {over} {under}"] if under < 10 else []
        writings += [f"{before} {over}/{under}"] if whole else []
        writings += [f"{before}{SIGNS[part]}", f"{before} {SIGNS[part]}"] if part in SIGNS else []
    else:
        writings += [f"{value}", f"{int(value):,}", f"{value}."]
        if abs(value) >= 10 and abs(value) % 10 == 0:
            zeros = len(str(value)) - len(str(value).rstrip("0"))
            few = value / 10**zeros
            writings += [f"{few}e{zeros}", rf"{few} \times 10^{{{zeros}}}", f"{few} x 10^{zeros}", f"{few}·10^{zeros}"]
    if under in (1, 2, 4, 5, 8, 10):
        writings += [f"{float(value):.3f}", f"{float(value):,.4f}"]
    written = draw(st.sampled_from(writings))
    around = draw(st.sampled_from(("{}", "{}", " {} ", "${}$", r"\({}\)", "**{}**", "{}.")))
    return value, around.format(written + draw(st.sampled_from(UNITS)))


@settings(max_examples=EXAMPLES, deadline=None)
@given(numbers(), numbers())
def test_numbers_are_the_same_in_any_notation_exactly_when_their_values_are(
    first: tuple[Fraction, str], second: tuple[Fraction, str]
) -> None:
    (value, text), (another, writing) = first, second
    assert same_answer(text, writing) == same_answer(writing, text) == (value == another), (text, writing)
    simple = f"{value.numerator}/{value.denominator}"
    assert same_answer(text, simple) and same_answer(simple, text), (text, simple)
    assert not same_answer(text, f"{value + 1}"), (text, value + 1)


def leaf() -> st.SearchStrategy[tuple[str, ...]]:
    names = st.sampled_from((("x",), ("y",), (r"\pi", "π", "pi", r"\pi ")))
    return names | st.integers(1, 9).map(lambda digit: (str(digit),))


def grown(inner: st.SearchStrategy[tuple[str, ...]]) -> st.SearchStrategy[tuple[str, ...]]:
    """Larger expressions, each in some spellings that mean the same."""

    def each(*forms: str) -> Callable[[tuple[tuple[str, ...], ...]], tuple[str, ...]]:
        return lambda parts: tuple(
            form.format(*(part[-1 - n % len(part)] for part in parts)) for n, form in enumerate(forms)
        )

    return st.one_of(
        st.tuples(inner, inner).map(each(r"\frac{{{0}}}{{{1}}}", r"\dfrac{{{0}}}{{{1}}}", "({0})/({1})")),
        st.tuples(inner).map(each(r"\sqrt{{{0}}}", "√({0})", r"\sqrt {{{0}}}")),
        st.tuples(inner).map(each("({0})^2", "({0})²", "({0})^{{2}}", "({0})**2")),
        st.tuples(inner, inner).map(each("({0})+({1})", "({0}) + ({1})", "({1}) + ({0})")),
        st.tuples(inner, inner).map(each(r"({0})\cdot({1})", "({0})·({1})", r"({1}) \times ({0})")),
        st.integers(2, 9).map(lambda base: (rf"\log_{base} 8", rf"\log_{{{base}}} 8", rf"\log_{{{base}}}(8)")),
        st.tuples(st.integers(1, 9), st.integers(1, 9)).map(
            lambda both: (rf"\frac {both[0]} {both[1]}", rf"\frac{both[0]}{both[1]}", rf"\frac{both[0]} {both[1]}")
        ),
        st.tuples(st.integers(2, 9), st.integers(2, 9)).map(
            lambda both: (rf"\sqrt {both[0]} {both[1]}", rf"{both[1]}\sqrt{{{both[0]}}}")
        ),
    )


expressions = st.recursive(leaf(), grown, max_leaves=3)


@cache
def alone(answer: str, reference: str) -> bool:
    """What math-verify says of two texts as they are."""
    from math_verify import LatexExtractionConfig, parse, verify

    logging.getLogger("math_verify").setLevel(logging.ERROR)
    extraction = [LatexExtractionConfig(boxed_match_priority=0)]
    read = [parse(rf"\boxed{{{text}}}", extraction, parsing_timeout=None) for text in (reference, answer)]
    return bool(verify(*read, timeout_seconds=None))


@settings(max_examples=EXAMPLES // 2, deadline=None)
@given(expressions, expressions, st.data())
def test_what_math_verify_calls_equal_stays_equal(
    first: tuple[str, ...], second: tuple[str, ...], data: st.DataObject
) -> None:
    one, same = data.draw(st.sampled_from(first)), data.draw(st.sampled_from(first))
    other = data.draw(st.sampled_from(second))
    assert same_answer(one, one) and same_answer(one, same) and same_answer(same, one), (one, same)
    found = same_answer(one, other)
    assert found == same_answer(other, one), (one, other)
    if not found:
        assert not alone(one, other), (one, other)


@settings(max_examples=EXAMPLES)
@given(st.text("0123456789.,$%/ -+xe{}\\½²√°pmasincohl_^()[]=:'", max_size=12))
def test_any_answer_that_says_something_is_itself(text: str) -> None:
    assert same_answer(text, text) or not text.strip(" \t\n*.$\\()[]")


@pytest.mark.parametrize(
    ("answer", "reference"),
    [
        (r"\log_2 8", "3"),
        ("log₂8", "3"),
        (r"\log_10 100", "2"),
        (r"\frac\pi2", "π/2"),
        (r"\frac \pi 2", "pi/2"),
        (r"\frac a b", "a/b"),
        ("3 sqrt(2)", r"\sqrt{18}"),
        ("√12", r"2\sqrt3"),
        ("x²⁰", "x^{20}"),
        ("10⁻³", "1e-3"),
        ("3/4 of the cake", "75%"),
        ("50 percent", "1/2"),
        ("25 °C", r"25^\circ"),
        ("€5", r"\frac{10}{2}"),
        ("１，０００", "1000"),
        ("10^6 dollars", "1,000,000"),
        ("12 noon", "12 p.m."),
        ("10:00 am", "10 A.M."),
        ("5 o'clock", "5 pm"),
        ("12", "12 pm"),
        ("17 18", "17, 18"),
        ("(1 2)", "(1,2)"),
    ],
)
def test_people_write_the_same_otherwise(answer: str, reference: str) -> None:
    assert same_answer(answer, reference) and same_answer(reference, answer)


@pytest.mark.parametrize(
    ("answer", "reference"),
    [
        ("12 hours", "12 pm"),
        ("12 am", "12 pm"),
        ("noon", "midnight"),
        ("12 apples", "noon"),
        ("10:30 am", "1/3"),
        ("1,2", "12"),
        ("3, 4", "34"),
        ("3 4", "12"),
        ("3 4", "7"),
        ("3 1/2", "3/2"),
        ("1½", "1/2"),
        ("1e6", "6e"),
        ("√12", r"\sqrt{1}2"),
        ("x²", "2x"),
        ("pi", "ip"),
        ("x m/s", "3"),
        ("5 thou\u017fand", "5"),
    ],
)
def test_what_looks_alike_differs(answer: str, reference: str) -> None:
    assert not same_answer(answer, reference) and not same_answer(reference, answer)


def test_an_answer_may_show_an_equation_where_the_reference_has_its_value() -> None:
    assert same_answer("3+4=7", "7") and not same_answer("7", "3+4=7")
