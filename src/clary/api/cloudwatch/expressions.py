"""Metric math: the expressions of GetMetricData.

Source: "Using math expressions with CloudWatch metrics" in the CloudWatch user guide. A value is a number, a time
series, or several. Between two series an operator works on the times that both have; a result that is no number (a
division by zero) is no datapoint.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, NamedTuple

from clary.errors import AwsError


@dataclass(frozen=True, slots=True)
class TimeSeries:
    """Values by time (seconds since the epoch), in no order."""

    label: str
    values: Mapping[int, float]
    period: int

    def map(self, of: Callable[[float], float]) -> TimeSeries:
        """Apply a function to each value."""
        return self.made({at: _guarded(of, value) for at, value in self.values.items()})

    def made(self, values: Mapping[int, float]) -> TimeSeries:
        """Give a series with other values, without those that are no numbers."""
        return replace(self, values={at: value for at, value in values.items() if math.isfinite(value)})


Value = float | TimeSeries | list[TimeSeries]


class Scope(NamedTuple):
    """What an expression may refer to. `grid` gives all times of the request at a period."""

    lookup: Callable[[str], Value]
    metrics: Callable[[], Sequence[tuple[str, TimeSeries]]]
    """The series of the request that are metrics, by their ids."""
    grid: Callable[[int], range]
    period: int
    """The longest of the request's metrics: what a number becomes a series with."""


def evaluate(text: str, scope: Scope) -> Value:
    """Compute an expression. Raises AwsError ValidationError (400) for what is wrong with it."""
    parser = _Parser(_tokens(text), scope)
    value = parser.expression(0)
    parser.expect("end")
    if isinstance(value, _Word | str):
        raise _wrong("it is a text")
    return value


def _wrong(why: str) -> AwsError:
    return AwsError(why, code="ValidationError", status=400)


# Reading

_TOKEN = re.compile(
    r"""\s*(?:(?P<number>\d+(?:\.\d*)?(?:[eE][+-]?\d+)?|\.\d+)|(?P<id>[a-z][A-Za-z0-9_]*)|(?P<word>[A-Z][A-Z0-9_]*)
    |(?P<text>"[^"]*"|'[^']*')|(?P<sign>==|!=|<=|>=|&&|\|\||[-+*/^<>(),\[\]]))""",
    re.VERBOSE,
)
_BINDING = {"OR": 1, "||": 1, "AND": 2, "&&": 2, "==": 3, "!=": 3, "<": 3, ">": 3, "<=": 3, ">=": 3, "+": 4, "-": 4,
            "*": 5, "/": 5, "^": 7}  # fmt: skip
_UNARY = 6
_DEEPEST = 60


class _Token(NamedTuple):
    kind: str
    text: str

    @property
    def shown(self) -> str:
        return repr(self.text) if self.text else "its end"


class _Word(NamedTuple):
    """REPEAT and LINEAR, which only FILL understands."""

    text: str


_Operand = Value | _Word | str


def _tokens(text: str) -> list[_Token]:
    found, at = [], 0
    text = text.rstrip()
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise _wrong(f"it cannot be read from {text[at : at + 20]!r} on")
        kind = match.lastgroup or ""
        found.append(_Token(kind, match[kind]))
        at = match.end()
    return [*found, _Token("end", "")]


class _Parser:
    """Reads and computes in one go: by precedence, the tighter operators first."""

    def __init__(self, tokens: Sequence[_Token], scope: Scope) -> None:
        self._tokens = tokens
        self._at = 0
        self._depth = 0
        self._scope = scope

    def expression(self, floor: int) -> _Operand:
        self._depth += 1
        if self._depth > _DEEPEST:
            raise _wrong("it is nested too deeply")
        left = self._operand()
        while (binding := _BINDING.get(self._next.text, 0)) > floor:
            sign = self._take().text
            # a^b^c is a^(b^c)
            right = self.expression(binding - 1 if sign == "^" else binding)
            left = _combined(_OPERATORS[sign], left, right)
        self._depth -= 1
        return left

    def expect(self, what: str) -> None:
        token = self._take()
        if what not in (token.kind, token.text):
            raise _wrong(f"{what!r} is expected where it has {token.shown}")

    @property
    def _next(self) -> _Token:
        return self._tokens[self._at]

    def _take(self) -> _Token:
        token = self._tokens[self._at]
        self._at += token.kind != "end"
        return token

    def _operand(self) -> _Operand:
        token = self._take()
        match token.kind, token.text:
            case "number", text:
                return float(text)
            case "id", text:
                return self._scope.lookup(text)
            case "text", text:
                return text[1:-1]
            case "word", ("REPEAT" | "LINEAR") as text:
                return _Word(text)
            case "word", text:
                return self._call(text)
            case "sign", "-":
                return _combined(operator.mul, -1.0, self.expression(_UNARY))
            case "sign", "(":
                value = self.expression(0)
                self.expect(")")
                return value
            case "sign", "[":
                return _listed(self._until("]"))
            case _:
                raise _wrong(f"a value is expected where it has {token.shown}")

    def _call(self, name: str) -> Value:
        if name not in FUNCTIONS:
            raise _wrong(f"Clary does not implement {name}; docs/metrics.md lists the functions that it does")
        self.expect("(")
        arguments = self._until(")")
        fewest, most, function = FUNCTIONS[name]
        if not fewest <= len(arguments) <= most:
            raise _wrong(f"{name} takes {fewest if fewest == most else f'{fewest} to {most}'} arguments")
        try:
            return function(self._scope, *arguments)
        except TypeError as error:
            raise _wrong(f"{name}: {error}") from error

    def _until(self, end: str) -> list[_Operand]:
        found: list[_Operand] = []
        while self._next.text != end:
            found.append(self.expression(0))
            if self._next.text != end:
                self.expect(",")
        self.expect(end)
        return found


# Computing


def _guarded(of: Callable[..., float], *values: float) -> float:
    try:
        result = of(*values)
        return float(result) if isinstance(result, float | int) else math.nan  # (-8) ^ 0.5 is complex
    except (ArithmeticError, ValueError):
        return math.nan


def _combined(of: Callable[[Any, Any], float], left: _Operand, right: _Operand) -> Value:
    match left, right:
        case float(), float():
            return _guarded(of, left, right)
        case TimeSeries(), float():
            return left.map(lambda value: of(value, right))
        case float(), TimeSeries():
            return right.map(lambda value: of(left, value))
        case TimeSeries(), TimeSeries():
            both = left.values.keys() & right.values.keys()
            return left.made({at: _guarded(of, left.values[at], right.values[at]) for at in both})
        case list(), float() | TimeSeries():
            return [_series(_combined(of, each, right)) for each in left]
        case float() | TimeSeries(), list():
            return [_series(_combined(of, left, each)) for each in right]
    raise _wrong("an operator stands between values that it cannot combine")


_OPERATORS: Mapping[str, Callable[[Any, Any], float]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
    "^": operator.pow,
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    ">": operator.gt,
    "<=": operator.le,
    ">=": operator.ge,
    "AND": lambda a, b: float(bool(a) and bool(b)),
    "&&": lambda a, b: float(bool(a) and bool(b)),
    "OR": lambda a, b: float(bool(a) or bool(b)),
    "||": lambda a, b: float(bool(a) or bool(b)),
}


def _series(value: _Operand) -> TimeSeries:
    if not isinstance(value, TimeSeries):
        raise TypeError("a time series is expected")
    return value


def _number(value: _Operand) -> float:
    if not isinstance(value, float):
        raise TypeError("a number is expected")
    return value


def _listed(values: Sequence[_Operand]) -> list[TimeSeries]:
    found: list[TimeSeries] = []
    for value in values:
        found += value if isinstance(value, list) else [_series(value)]
    return found


def _each(value: _Operand, of: Callable[[TimeSeries], TimeSeries]) -> Value:
    return [of(each) for each in value] if isinstance(value, list) else of(_series(value))


def _elementwise(of: Callable[[float], float]) -> Callable[..., Value]:
    def apply(_: Scope, value: _Operand) -> Value:
        return _guarded(of, value) if isinstance(value, float) else _each(value, lambda each: each.map(of))

    return apply


def _reduced(of: Callable[[Sequence[float]], float]) -> Callable[..., Value]:
    """Reduce a series to a number, and several to one, time by time."""

    def apply(_: Scope, *values: _Operand) -> Value:
        if len(values) == 1 and isinstance(values[0], TimeSeries):
            found = list(values[0].values.values())
            return _guarded(of, found) if found else math.nan  # type: ignore[arg-type]  # one argument: a sequence
        several = _listed(values)
        if not several:
            raise TypeError("there are no time series")
        times = {at for each in several for at in each.values}
        return several[0].made({at: of([each.values[at] for each in several if at in each.values]) for at in times})

    return apply


def _deviation(values: Sequence[float]) -> float:
    mean = math.fsum(values) / len(values)
    return math.sqrt(math.fsum((value - mean) ** 2 for value in values) / len(values))


def _metrics(scope: Scope, part: _Operand = "") -> Value:
    if not isinstance(part, str):
        raise TypeError("a text is expected")
    return [series for id, series in scope.metrics() if part in id]


def _fill(scope: Scope, value: _Operand, filling: _Operand) -> Value:
    def fill(series: TimeSeries) -> TimeSeries:
        found = dict(series.values)
        for at in scope.grid(series.period):
            if at in found:
                continue
            match filling:
                case float():
                    found[at] = filling
                case TimeSeries() if at in filling.values:
                    found[at] = filling.values[at]
                case _Word("REPEAT"):
                    if (before := max((t for t in series.values if t < at), default=None)) is not None:
                        found[at] = series.values[before]
                case _Word("LINEAR"):
                    before = max((t for t in series.values if t < at), default=None)
                    after = min((t for t in series.values if t > at), default=None)
                    if before is not None and after is not None:
                        share = (at - before) / (after - before)
                        found[at] = series.values[before] * (1 - share) + series.values[after] * share
        return series.made(found)

    if not isinstance(filling, float | TimeSeries | _Word):
        raise TypeError("the second argument must be a number, a time series, REPEAT or LINEAR")
    return _each(value, fill)


def _steps(of: Callable[[float, float], float]) -> Callable[..., Value]:
    """From each value and the one before (differences in value and in seconds); the first has none."""

    def apply(_: Scope, value: _Operand) -> Value:
        def between(series: TimeSeries) -> TimeSeries:
            times = sorted(series.values)
            pairs = pairwise(times)
            return series.made({b: of(series.values[b] - series.values[a], float(b - a)) for a, b in pairs})

        return _each(value, between)

    return apply


def _running_sum(_: Scope, value: _Operand) -> Value:
    def add_up(series: TimeSeries) -> TimeSeries:
        found, total = {}, 0.0
        for at in sorted(series.values):
            total += series.values[at]
            found[at] = total
        return series.made(found)

    return _each(value, add_up)


def _if(_: Scope, condition: _Operand, then: _Operand, otherwise: _Operand | None = None) -> Value:
    def of(value: _Operand | None, at: int) -> float | None:
        return value.values.get(at) if isinstance(value, TimeSeries) else None if value is None else _number(value)

    if isinstance(condition, float):
        chosen = then if condition else otherwise
        if isinstance(chosen, float | TimeSeries):
            return chosen
        raise TypeError("what is chosen must be a number or a time series")
    series = _series(condition)
    found = {at: of(then if value else otherwise, at) for at, value in series.values.items()}
    return series.made({at: value for at, value in found.items() if value is not None})


def _period(_: Scope, value: _Operand) -> Value:
    return float(_series(value).period)


def _time_series(scope: Scope, value: _Operand) -> Value:
    number = _number(value)
    return TimeSeries("", {}, scope.period).made(dict.fromkeys(scope.grid(scope.period), number))


FUNCTIONS: Mapping[str, tuple[int, int, Callable[..., Value]]] = {
    "ABS": (1, 1, _elementwise(abs)),
    "AVG": (1, 50, _reduced(lambda values: math.fsum(values) / len(values))),
    "CEIL": (1, 1, _elementwise(math.ceil)),
    "DATAPOINT_COUNT": (1, 1, lambda _, value: float(len(_series(value).values))),
    "DIFF": (1, 1, _steps(lambda change, _: change)),
    "DIFF_TIME": (1, 1, _steps(lambda _, seconds: seconds)),
    "FILL": (2, 2, _fill),
    "FIRST": (1, 50, lambda _, *values: _listed(values)[0] if _listed(values) else []),
    "FLOOR": (1, 1, _elementwise(math.floor)),
    "IF": (2, 3, _if),
    "LAST": (1, 50, lambda _, *values: _listed(values)[-1] if _listed(values) else []),
    "LOG": (1, 1, _elementwise(math.log)),
    "LOG10": (1, 1, _elementwise(math.log10)),
    "MAX": (1, 50, _reduced(max)),
    "METRICS": (0, 1, _metrics),
    "METRIC_COUNT": (1, 50, lambda _, *values: float(len(_listed(values)))),
    "MIN": (1, 50, _reduced(min)),
    "PERIOD": (1, 1, _period),
    "RATE": (1, 1, _steps(operator.truediv)),
    "REMOVE_EMPTY": (1, 1, lambda _, value: [each for each in _listed([value]) if each.values]),
    "RUNNING_SUM": (1, 1, _running_sum),
    "STDDEV": (1, 50, _reduced(_deviation)),
    "SUM": (1, 50, _reduced(math.fsum)),
    "TIME_SERIES": (1, 1, _time_series),
}
"""By name: the fewest and the most arguments, and what it does."""
