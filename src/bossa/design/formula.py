"""What was asked of the columns? Arguments of `model()` → `Spec`; then `resolve` against the columns there are.

A formula is data, never code: columns, the functions of `transforms.FUNCTIONS` and the names of `env=` exist, nothing else does.
`update_formula` edits one formula by another, as R's `update`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from attrs import evolve

from ..errors import DataError, FormulaError, OptionError, UnknownColumn, UnknownOption, one, suggestion
from ..kernels.contrasts import CODINGS
from ..state.spec import Call, Expr, Name, Operation, Spec, Term, names_in, written
from .parse import parse
from .terms import DOT, Sides, read
from .transforms import FUNCTIONS, RESERVED, bind

CODING_NAMES = {
    "contr.treatment": "treatment",
    "contr.sum": "sum",
    "contr.helmert": "helmert",
    "contr.poly": "poly",
    "contr.sdif": "sequential",
}


def make_spec(
    formula: str,
    *,
    weights: str | None = None,
    freq_weights: str | None = None,
    offset: str | None = None,
    contrasts: Mapping[str, Any] | None = None,
    levels: Mapping[str, Any] | None = None,
    missing: str = "drop",
    env: Mapping[str, Any] | None = None,
) -> Spec:
    """What `model()` was told about the columns, checked as far as that goes without data. See `bossa.model`."""
    if not isinstance(formula, str):
        given = repr(formula) if formula is None or isinstance(formula, (bool, int, float)) else one(formula)
        do = "Write it as text, and before the data: model('y ~ x', data)."
        raise OptionError(f"formula={given} is not a string.", where="model()", do=do)
    for name, value in (("weights", weights), ("freq_weights", freq_weights), ("offset", offset)):
        if value is not None and not isinstance(value, str):
            raise OptionError(
                f"{name}= takes the name of a column, not {type(value).__name__}.", where="model()", do="Put the values into the data."
            )
    if not isinstance(missing, str) or missing not in ("drop", "error"):
        raise UnknownOption(missing, ("drop", "error"), where="model() missing=", kind="value")
    env = _checked_env(env)
    sides = read(formula)
    for expr in _expressions(sides):
        _check_functions(expr, formula, env)
    return Spec(
        formula=formula,
        response=sides.response,
        fixed=sides.fixed,
        bars=sides.bars,
        offsets=sides.offsets,
        weights=weights,
        freq_weights=freq_weights,
        offset=offset,
        contrasts=_checked_contrasts(contrasts),
        levels=_checked_levels(levels),
        missing=missing,
        env=env,
    )


def resolve(spec: Spec, frame: Any) -> Spec:
    """The spec with `.` replaced by the columns of `frame`, every name looked up.

    raises  UnknownColumn with the nearest name
    """
    columns = tuple(frame.columns)
    if spec.fixed and any(DOT in term.factors for term in spec.fixed) and "." not in columns:
        sides = read(spec.formula, columns)
        spec = evolve(spec, fixed=sides.fixed, offsets=sides.offsets)
    known = {*columns, *(k for k, v in spec.env.items() if not callable(v))}
    for name in _column_names(spec):
        if name not in known:
            raise UnknownColumn(name, [*columns, *spec.env], where=f"formula {spec.formula!r}")
    for argument in ("weights", "freq_weights", "offset"):
        name = getattr(spec, argument)
        if name is not None and name not in columns:
            raise UnknownColumn(name, columns, where=f"{argument}={name!r}")
    for name in spec.levels:
        if name not in columns:
            raise UnknownColumn(name, columns, where="levels=")
    return spec


def dot_columns(spec: Spec, frame: Any) -> tuple[str, ...]:
    """What `.` stands for in this formula; empty where there is none."""
    if not read(spec.formula).dotted:
        return ()
    response = set() if spec.response is None else {n.id for n in names_in(spec.response)}
    return tuple(c for c in frame.columns if c not in response)


def _expressions(sides: Sides | Spec) -> Iterator[Expr]:
    """Every factor of every term, the response, offsets and grouping factors."""
    if sides.response is not None:
        yield sides.response
    yield from (f for term in sides.fixed for f in term.factors)
    yield from sides.offsets
    for bar in sides.bars:
        yield from (f for term in bar.lhs for f in term.factors)
        yield from bar.factor


def _column_names(spec: Spec) -> Iterator[str]:
    for expr in _expressions(spec):
        yield from data_names(expr)


def data_names(expr: Expr) -> list[str]:
    """Names of the columns that an expression reads, in order; names given as options (`C(x, sum)`) are not among them."""
    if isinstance(expr, Name):
        return [expr.id]
    parts: tuple[Expr, ...] = ()
    if isinstance(expr, Operation):
        parts = expr.args
    elif isinstance(expr, Call):
        parts = bind(expr, FUNCTIONS[expr.function])[0] if expr.function in FUNCTIONS else expr.args
    return list(dict.fromkeys(name for part in parts for name in data_names(part)))


def _check_functions(expr: Expr, formula: str, env: Mapping[str, Any]) -> None:
    if isinstance(expr, Operation):
        parts: tuple[Expr, ...] = expr.args
    elif isinstance(expr, Call):
        if expr.function not in FUNCTIONS and not callable(env.get(expr.function)):
            known = [*FUNCTIONS, *(k for k, v in env.items() if callable(v))]
            raise FormulaError(
                f"{expr.function!r} is not a function of formulas.",
                text=formula,
                position=expr.position,
                do=suggestion(expr.function, known) + " Others are passed in env={'name': function}.",
            )
        parts = _bound(expr, formula) if expr.function in FUNCTIONS else expr.args
    else:
        return
    for part in parts:
        _check_functions(part, formula, env)


def _bound(call: Call, formula: str) -> tuple[Expr, ...]:
    try:
        return bind(call, FUNCTIONS[call.function])[0]
    except (DataError, UnknownOption) as error:
        raise FormulaError(f"{call.function}(): {error.what}", text=formula, position=call.position, do=error.do) from None


def _checked_env(env: Mapping[str, Any] | None) -> dict[str, Any]:
    if env is None:
        return {}
    if not isinstance(env, Mapping):
        raise OptionError(f"env= takes a dict of names, not {type(env).__name__}.", where="model()")
    for name, value in env.items():
        if not isinstance(name, str):
            raise OptionError(f"the name {name!r} is not a string.", where="model() env=")
        if callable(value):
            if name in FUNCTIONS or name in RESERVED:
                raise OptionError(f"{name!r} is already a function of formulas.", where="model() env=", do="Give yours another name.")
        elif not isinstance(value, (int, float, str, list, tuple, range, np.ndarray, np.generic)):
            raise OptionError(
                f"{name!r} is a {type(value).__name__}: neither a function, a number, a string nor an array.", where="model() env="
            )
    return dict(env)


def _checked_contrasts(contrasts: Mapping[str, Any] | None) -> dict[str, Any]:
    if contrasts is None:
        return {}
    if not isinstance(contrasts, Mapping):
        raise OptionError(f"contrasts= takes a dict such as {{'g': 'sum'}}, not {type(contrasts).__name__}.", where="model()")
    return {_name(name, "contrasts="): coding_name(value, f"contrasts= of {name!r}") for name, value in contrasts.items()}


def coding_name(value: Any, where: str) -> Any:
    """A coding as given: one of CODINGS (R's names accepted), or an array (levels, columns)."""
    if isinstance(value, str):
        value = CODING_NAMES.get(value, value)
        if value not in CODINGS:
            raise UnknownOption(value, CODINGS, where=where, kind="coding")
        return value
    try:
        matrix = np.array(value, dtype=float)
    except (TypeError, ValueError):
        raise OptionError(
            "neither a coding's name nor an array of numbers (levels, columns).", where=where, do=f"Codings: {', '.join(CODINGS)}."
        ) from None
    if matrix.ndim == 1:
        matrix = matrix[:, None]
    if matrix.ndim != 2 or not np.isfinite(matrix).all():
        raise OptionError("the array must have a finite number for each level and column.", where=where)
    return matrix


def _checked_levels(levels: Mapping[str, Any] | None) -> dict[str, list]:
    if levels is None:
        return {}
    if not isinstance(levels, Mapping):
        raise OptionError(f"levels= takes a dict such as {{'g': ['b', 'a']}}, not {type(levels).__name__}.", where="model()")
    out = {}
    for name, values in levels.items():
        if isinstance(values, str) or not isinstance(values, Iterable):
            raise OptionError(f"levels of {name!r} must be a list.", where="model() levels=")
        listed = list(values)
        if any(not isinstance(v, (str, int, float, bool, np.generic)) for v in listed):
            raise OptionError(f"levels of {name!r} must be strings, numbers or booleans.", where="model() levels=")
        if len(set(listed)) < len(listed) or not listed:
            raise OptionError(f"levels of {name!r} {'name one twice' if listed else 'are empty'}.", where="model() levels=")
        out[_name(name, "levels=")] = listed
    return out


def _name(name: Any, argument: str) -> str:
    if not isinstance(name, str):
        raise OptionError(f"{name!r} is not the name of a column.", where=f"model() {argument}")
    return name


# ---------------------------------------------------------------- update
def update_formula(old: str, new: str) -> str:
    """`new` with each `.` replaced by that side of `old`, simplified: ("y ~ x + z", ". ~ . - z") → "y ~ x".

    Source: R `update.formula`.
    """
    if not isinstance(new, str):
        raise OptionError(f"formula={new!r:.80} is not a string.", where="update()", do="Write '. ~ . - x'.")
    before, after = parse(old), parse(new)
    if not isinstance(after, Operation) or after.op != "~":
        raise FormulaError("it has no '~'.", text=new, do="Write '. ~ . - x'.")
    if not isinstance(before, Operation) or before.op != "~":
        raise FormulaError("it has no '~'.", text=old)
    left = [_substituted(a, before.args[0] if len(before.args) == 2 else None, new) for a in after.args[:-1]]
    right = _substituted(after.args[-1], before.args[-1], new)
    head = f"{_unparsed(left[0])} ~ " if left else "~ "
    text = head + _unparsed(right)
    sides = read(text)
    return text if sides.dotted else head + _right_side(sides)


def _substituted(expr: Expr, old: Expr | None, text: str) -> Expr:
    if expr == DOT:
        if old is None:
            raise FormulaError("the old formula has no response for '.'.", text=text, position=expr.position)
        return old
    if isinstance(expr, Operation):
        return evolve(expr, args=tuple(_substituted(a, old, text) for a in expr.args))
    if isinstance(expr, Call):
        return evolve(expr, args=tuple(_substituted(a, old, text) for a in expr.args))
    return expr


def _right_side(sides: Sides) -> str:
    def summed(terms: tuple[Term, ...]) -> list[str]:
        parts = [":".join(_unparsed(f) for f in t.factors) for t in terms if t.degree]
        return parts if any(not t.degree for t in terms) else ["0", *parts]

    bars = [
        f"({' + '.join(summed(b.lhs)) or '1'} {'|' if b.correlated else '||'} {':'.join(_unparsed(f) for f in b.factor)})"
        for b in sides.bars
    ]
    parts = [*summed(sides.fixed), *(_unparsed(o) for o in sides.offsets), *bars]
    if not any(t.degree for t in sides.fixed) and any(not t.degree for t in sides.fixed):
        parts = ["1", *parts]
    return " + ".join(parts)


def _unparsed(expr: Expr) -> str:
    """The expression as text that `parse` reads back: odd names between backticks, bars in parentheses."""
    if isinstance(expr, Operation) and expr.op in ("|", "||"):
        return f"({_unparsed(expr.args[0])} {expr.op} {_unparsed(expr.args[1])})"
    if isinstance(expr, Operation) and expr.op in ("+", "-") and len(expr.args) == 2:
        right = _unparsed(expr.args[1])
        nested = isinstance(expr.args[1], Operation) and expr.args[1].op in ("+", "-")
        return f"{_unparsed(expr.args[0])} {expr.op} {f'({right})' if nested else right}"
    return written(expr, _backticked)


def _backticked(name: str) -> str:
    plain = re.fullmatch(r"(?:[^\W\d_]|\.(?!\d)|_)[\w.]*", name) and name not in ("TRUE", "FALSE", "NULL", "True", "False", "None")
    return name if plain else "`" + name.replace("\\", "\\\\").replace("`", "\\`") + "`"
