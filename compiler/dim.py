"""Sizes and indices: integers, or polynomials over named symbols.

A `Dim` is a Python `int` or an interned `Symbolic`. A symbolic expression is kept in one canonical form,
a sum of integer multiples of products of atoms, so that equal polynomials are the same object. Atoms are
symbols, floor division, remainder, and maximum. Symbols of sizes are identifiers and stand for integers
>= 0; the axes of kernels are symbols whose name begins with `%`, so that index maps are Dims too.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping
from typing import Union

from pierian.compiler.errors import FormatError, PierianError

Dim = Union[int, "Symbolic"]
Monomial = tuple["Atom", ...]

_ATOMS: dict[tuple[object, ...], Atom] = {}
_EXPRESSIONS: dict[tuple[tuple[Monomial, int], ...], Symbolic] = {}


class Atom:
    """A factor that is not a polynomial: a symbol, or `kind(args)` with kind div, mod or max."""

    __slots__ = ("args", "kind", "name", "order")

    def __init__(self, kind: str, name: str, args: tuple[Dim, ...]) -> None:
        self.kind = kind
        self.name = name
        self.args = args
        self.order = name if kind == "symbol" else f"~{kind}({', '.join(map(str, args))})"

    def __lt__(self, other: Atom) -> bool:
        return self.order < other.order

    def __str__(self) -> str:
        if self.kind == "symbol":
            return self.name
        return f"{self.kind}({', '.join(map(str, self.args))})"

    __repr__ = __str__


class Symbolic:
    """A polynomial over atoms; made by arithmetic, never directly. Equal expressions are identical."""

    __slots__ = ("terms",)

    terms: tuple[tuple[Monomial, int], ...]

    def __add__(self, other: Dim) -> Dim:
        if other == 0:
            return self
        return _from_terms(_sum(_terms(self), _terms(other)))

    __radd__ = __add__

    def __neg__(self) -> Dim:
        return _scaled(self, -1)

    def __sub__(self, other: Dim) -> Dim:
        return self + (-other)

    def __rsub__(self, other: Dim) -> Dim:
        return -self + other

    def __mul__(self, other: Dim) -> Dim:
        if isinstance(other, int):
            return _scaled(self, other)
        product: dict[Monomial, int] = {}
        for left, a in self.terms:
            for right, b in _terms(other).items():
                monomial = tuple(sorted(left + right))
                product[monomial] = product.get(monomial, 0) + a * b
        return _from_terms(product)

    __rmul__ = __mul__

    def __floordiv__(self, other: Dim) -> Dim:
        return floordiv(self, other)

    def __rfloordiv__(self, other: Dim) -> Dim:
        return floordiv(other, self)

    def __mod__(self, other: Dim) -> Dim:
        return mod(self, other)

    def __str__(self) -> str:
        parts: list[str] = []
        for monomial, factor in self.terms:
            body = "*".join(map(str, monomial))
            if not monomial:
                text = str(abs(factor))
            elif abs(factor) == 1:
                text = body
            else:
                text = f"{abs(factor)}*{body}"
            sign = "-" if factor < 0 else "+"
            parts.append(text if not parts and factor > 0 else f"-{text}" if not parts else f"{sign}{text}")
        return "".join(parts)

    __repr__ = __str__

    def __reduce__(self) -> tuple[Callable[[str], Dim], tuple[str]]:
        return parse_dim, (str(self),)


def symbol(name: str) -> Symbolic:
    """The symbol of that name, as an expression."""
    found = _from_terms({(_atom("symbol", name),): 1})
    assert isinstance(found, Symbolic)
    return found


def floordiv(numerator: Dim, denominator: Dim) -> Dim:
    """`numerator // denominator`, exact division of polynomials done on the spot."""
    if isinstance(numerator, int) and isinstance(denominator, int):
        return numerator // denominator
    if denominator == 1:
        return numerator
    exact = divide_exactly(numerator, denominator)
    if exact is not None:
        return exact
    return _from_terms({(_atom("div", "", numerator, denominator),): 1})


def mod(numerator: Dim, denominator: Dim) -> Dim:
    """The remainder of floor division; 0 when the division is exact."""
    if isinstance(numerator, int) and isinstance(denominator, int):
        return numerator % denominator
    if denominator == 1 or divide_exactly(numerator, denominator) is not None:
        return 0
    return _from_terms({(_atom("mod", "", numerator, denominator),): 1})


def maximum(first: Dim, second: Dim) -> Dim:
    """The larger of two sizes."""
    if isinstance(first, int) and isinstance(second, int):
        return max(first, second)
    if first is second:
        return first
    low, high = sorted((first, second), key=str)
    return _from_terms({(_atom("max", "", low, high),): 1})


def at_most(first: Dim, second: Dim) -> tuple[Dim, Dim]:
    """Two expressions that are equal where `first` <= `second`: so a run asks for it. They are the same if it is known."""
    return (second, second) if is_nonnegative(second - first) else (maximum(first, second), second)


def lower_bound(first: Dim, second: Dim) -> Dim | None:
    """What `second` has to reach, where the two were made by `at_most`; else None."""
    for atom in (atom for monomial in _terms(first) for atom in monomial if atom.kind == "max"):
        low, high = atom.args
        if maximum(low, high) == first and second in (low, high):
            return low if second == high else high
    return None


def are_positive(values: list[Dim]) -> Dim:
    """1 where all are positive, else 0: one atom, however many there are."""
    largest_negated: Dim = -1
    for value in values:
        largest_negated = maximum(largest_negated, -value)
    return maximum(1 - maximum(largest_negated + 1, 0), 0)


def ceildiv(numerator: Dim, denominator: int) -> Dim:
    """Division by a positive integer, rounded up."""
    return floordiv(numerator + (denominator - 1), denominator)


def product(dims: tuple[Dim, ...] | list[Dim]) -> Dim:
    """The product of sizes; 1 for none."""
    result: Dim = 1
    for dim in dims:
        result = dim * result
    return result


def divide_exactly(numerator: Dim, denominator: Dim) -> Dim | None:
    """The quotient when a polynomial divides by an integer or a single term without remainder."""
    if denominator == 0:
        return None
    if numerator is denominator:
        return 1
    divisor = list(_terms(denominator).items())
    if len(divisor) != 1:
        return None
    (atoms, factor), quotient = divisor[0], {}
    for monomial, coefficient in _terms(numerator).items():
        rest = list(monomial)
        for atom in atoms:
            if atom not in rest:
                return None
            rest.remove(atom)
        if coefficient % factor:
            return None
        quotient[tuple(rest)] = coefficient // factor
    return _from_terms(quotient)


def coefficient(expression: Dim, name: str) -> Dim | None:
    """The factor of symbol `name` where `expression` is linear in it, else None. 0 where it is absent."""
    result: dict[Monomial, int] = {}
    for monomial, factor in _terms(expression).items():
        count = 0
        for atom in monomial:
            if atom.kind == "symbol":
                count += atom.name == name
            elif name in symbols_of_atom(atom):
                return None
        if count > 1:
            return None
        if count:
            rest = tuple(atom for atom in monomial if not (atom.kind == "symbol" and atom.name == name))
            result[rest] = result.get(rest, 0) + factor
    return _from_terms(result)


def constant_part(expression: Dim) -> int:
    """The term without symbols."""
    return _terms(expression).get((), 0)


def symbols(expression: Dim) -> frozenset[str]:
    """The names of all symbols in an expression."""
    if isinstance(expression, int):
        return frozenset()
    return _symbols(expression)


@functools.lru_cache(maxsize=65536)
def _symbols(expression: Symbolic) -> frozenset[str]:
    found: set[str] = set()
    for monomial, _ in expression.terms:
        for atom in monomial:
            found |= symbols_of_atom(atom)
    return frozenset(found)


def symbols_of_atom(atom: Atom) -> frozenset[str]:
    """The names of all symbols in an atom."""
    if atom.kind == "symbol":
        return frozenset((atom.name,))
    return frozenset().union(*(symbols(arg) for arg in atom.args))


def substitute(expression: Dim, values: Mapping[str, Dim]) -> Dim:
    """The expression with symbols replaced by sizes; symbols not named stay."""
    if isinstance(expression, int) or not values or symbols(expression).isdisjoint(values):
        return expression
    result: Dim = 0
    for monomial, factor in expression.terms:
        term: Dim = factor
        for atom in monomial:
            if atom.kind == "symbol":
                term = term * values.get(atom.name, _from_terms({(atom,): 1}))
                continue
            args = [substitute(arg, values) for arg in atom.args]
            term = term * _RULES[atom.kind](*args)
        result = term + result
    return result


def evaluate(expression: Dim, values: Mapping[str, int]) -> int:
    """The integer an expression stands for when every symbol has a value.

    Raises:
        PierianError: a symbol without a value.
    """
    result = substitute(expression, values)
    if not isinstance(result, int):
        raise PierianError(f"size {expression} has no value", got=f"values for {sorted(values)}")
    return result


def definitely_differ(first: Dim, second: Dim) -> bool:
    """True where no values of the symbols make the two equal, as far as constants tell."""
    difference = first - second
    return isinstance(difference, int) and difference != 0


def is_nonnegative(expression: Dim) -> bool:
    """True where the expression is provably >= 0 for symbols >= 0: a sum of products of what is."""
    terms = _terms(expression).items()
    return all(factor >= 0 and all(_atom_is_nonnegative(atom) for atom in monomial) for monomial, factor in terms)


def _atom_is_nonnegative(atom: Atom) -> bool:
    if atom.kind == "symbol":
        return True
    first, second = atom.args
    if atom.kind == "max":
        return is_nonnegative(first) or is_nonnegative(second)
    divides = isinstance(second, int) and second > 0
    return divides and (atom.kind == "mod" or is_nonnegative(first))


_RULES: dict[str, Callable[[Dim, Dim], Dim]] = {"div": floordiv, "mod": mod, "max": maximum}


def _atom(kind: str, name: str, *args: Dim) -> Atom:
    key = (kind, name, *args)
    found = _ATOMS.get(key)
    if found is None:
        found = _ATOMS[key] = Atom(kind, name, args)
    return found


def _terms(expression: Dim) -> dict[Monomial, int]:
    if isinstance(expression, Symbolic):
        return dict(expression.terms)
    return {(): int(expression)} if expression else {}


def _sum(first: dict[Monomial, int], second: dict[Monomial, int]) -> dict[Monomial, int]:
    for monomial, factor in second.items():
        first[monomial] = first.get(monomial, 0) + factor
    return first


def _from_terms(terms: dict[Monomial, int]) -> Dim:
    kept = [(monomial, factor) for monomial, factor in terms.items() if factor]
    if not kept:
        return 0
    if len(kept) == 1:
        if not kept[0][0]:
            return kept[0][1]
    else:
        kept.sort(key=lambda term: (-len(term[0]), [atom.order for atom in term[0]]))
    return _interned(tuple(kept))


def _scaled(expression: Symbolic, factor: int) -> Dim:
    """All terms times an integer; their order stays."""
    if factor == 0 or factor == 1:
        return expression if factor else 0
    return _interned(tuple([(monomial, coefficient * factor) for monomial, coefficient in expression.terms]))


def _interned(key: tuple[tuple[Monomial, int], ...]) -> Symbolic:
    """The expression with these terms, which are in order."""
    found = _EXPRESSIONS.get(key)
    if found is None:
        found = _EXPRESSIONS[key] = object.__new__(Symbolic)
        found.terms = key
    return found


_TOKEN = re.compile(r"\s*(?:(\d+)|(%?[A-Za-z_][\w.]*)|([-+*(),]))")
_MAX_TEXT = 4096
_MAX_DEPTH = 64


def parse_dim(text: str) -> Dim:
    """The expression a text like `2*n+max(m, 1)` stands for; the inverse of `str`.

    Raises:
        FormatError: the text is no size expression, or is unreasonably long or deep.
    """
    if len(text) > _MAX_TEXT:
        raise FormatError("size expression is too long", got=f"{len(text)} characters", expected=_MAX_TEXT)
    tokens: list[str] = []
    position = 0
    text = text.rstrip()
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            raise FormatError("malformed size expression", got=text, where=f"character {position + 1}")
        tokens.append(match.group().strip())
        position = match.end()
    parser = _DimParser(tokens, text)
    result = parser.sum(0)
    if parser.position != len(tokens):
        raise FormatError("malformed size expression", got=text)
    return result


class _DimParser:
    def __init__(self, tokens: list[str], text: str) -> None:
        self.tokens = tokens
        self.text = text
        self.position = 0

    def peek(self) -> str:
        return self.tokens[self.position] if self.position < len(self.tokens) else ""

    def take(self, expected: str | None = None) -> str:
        token = self.peek()
        if not token or (expected is not None and token != expected):
            raise FormatError("malformed size expression", got=self.text, expected=expected)
        self.position += 1
        return token

    def sum(self, depth: int) -> Dim:
        if depth > _MAX_DEPTH:
            raise FormatError("size expression is too deep", got=self.text[:80])
        sign = -1 if self.peek() == "-" else 1
        if sign < 0:
            self.take()
        result = sign * self.term(depth)
        while self.peek() in ("+", "-"):
            sign = 1 if self.take() == "+" else -1
            result = result + sign * self.term(depth)
        return result

    def term(self, depth: int) -> Dim:
        result = self.factor(depth)
        while self.peek() == "*":
            self.take()
            result = result * self.factor(depth)
        return result

    def factor(self, depth: int) -> Dim:
        token = self.take()
        if token.isdigit():
            if len(token) > 19:
                raise FormatError("size is too large", got=self.text[:80])
            return int(token)
        if token == "(":
            result = self.sum(depth + 1)
            self.take(")")
            return result
        if token in _RULES and self.peek() == "(":
            self.take("(")
            first = self.sum(depth + 1)
            self.take(",")
            second = self.sum(depth + 1)
            self.take(")")
            if token != "max" and second == 0:
                raise FormatError("division by zero in a size expression", got=self.text)
            return _RULES[token](first, second)
        if not (token[0].isalpha() or token[0] in "_%"):
            raise FormatError("malformed size expression", got=self.text)
        return symbol(token)
