"""A small typed writer of LLVM IR text.

LLVM IR is written as text, not through an object model: a line costs a fraction of a microsecond, and what
is written is what `--emit llvm` shows. Values carry their type; a vector type is `<16 x float>`, a scalar `float`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple


class Value(NamedTuple):
    """An operand: its text (`%5`, `0`, `@f`) and its LLVM type."""

    text: str
    type: str

    def __str__(self) -> str:
        return f"{self.type} {self.text}"


def i64(value: int) -> Value:
    return Value(str(value), "i64")


def i32(value: int) -> Value:
    return Value(str(value), "i32")


TRUE = Value("true", "i1")
FALSE = Value("false", "i1")
NULL = Value("null", "ptr")


def vector(element: str, lanes: int) -> str:
    """The type of `lanes` elements; the element's own type for one lane."""
    return element if lanes == 1 else f"<{lanes} x {element}>"


def float_text(value: float, element: str) -> str:
    """A float constant in LLVM's exact hexadecimal form (`float` must be representable in single precision)."""
    if element == "float" and value == value and abs(value) != float("inf"):
        value = struct.unpack("<f", struct.pack("<f", value))[0]
    return f"0x{struct.unpack('<Q', struct.pack('<d', value))[0]:016X}"


def constant(value: float | int | bool, element: str, lanes: int = 1) -> Value:
    """A constant of an element type, the same in all lanes."""
    if element in ("float", "double"):
        text = float_text(float(value), element)
    elif element == "i1":
        text = "true" if value else "false"
    else:
        text = str(int(value))
    if lanes == 1:
        return Value(text, element)
    return Value(f"splat ({element} {text})", vector(element, lanes))


class FunctionWriter:
    """Writes the body of one function.

    >>> f = FunctionWriter("add", "i64", [("a", "i64"), ("b", "i64")], linkage="")
    >>> f.ret(f.op("add", f.arg("a"), f.arg("b")))
    >>> print(f.finish())
    """

    def __init__(
        self,
        name: str,
        result: str,
        parameters: Sequence[tuple[str, str]],
        linkage: str = "internal ",
        attributes: str = "nounwind",
        isa: str = "",
    ) -> None:
        self.name = name
        self.isa = isa
        self.parameters = {key: Value(f"%{key}", type_) for key, type_ in parameters}
        self.declarations: set[str] = set()
        self._header = (
            f"define {linkage}{result} @{name}("
            + ", ".join(f"{type_} %{key}" for key, type_ in parameters)
            + f") {attributes} {{"
        )
        self._entry: list[str] = []
        self._lines: list[str] = []
        self._counter = 0
        self._block = "start"
        self._regions = [0]  # of the loops and branches being written, from the outermost in; the function's own first

    def arg(self, name: str) -> Value:
        return self.parameters[name]

    # --- raw lines ---------------------------------------------------------------------------------

    def line(self, text: str) -> None:
        """An instruction without a result."""
        self._lines.append("  " + text)

    def emit(self, text: str, type_: str) -> Value:
        """An instruction with a result of type `type_`."""
        self._counter += 1
        name = f"%v{self._counter}"
        self._lines.append(f"  {name} = {text}")
        return Value(name, type_)

    def alloca(self, type_: str, count: int = 1, align: int = 64) -> Value:
        """Stack space, reserved once at function entry whatever loop it is asked for in."""
        self._counter += 1
        name = f"%v{self._counter}"
        self._entry.append(f"  {name} = alloca {type_}, i64 {count}, align {align}")
        return Value(name, "ptr")

    # --- instructions ------------------------------------------------------------------------------

    def op(self, name: str, x: Value, y: Value) -> Value:
        """A binary instruction such as `add`, `fmul`, `and`, on operands of one type."""
        return self.emit(f"{name} {x.type} {x.text}, {y.text}", x.type)

    def cmp(self, predicate: str, x: Value, y: Value) -> Value:
        """`icmp slt`, `fcmp olt`, ... The result is i1, or a vector of them."""
        return self.emit(f"{predicate} {x.type} {x.text}, {y.text}", like(x.type, "i1"))

    def both(self, x: Value, y: Value) -> Value:
        """The conjunction of two conditions; known ones are folded."""
        if FALSE in (x, y):
            return FALSE
        return y if x == TRUE else x if y == TRUE else self.op("and", x, y)

    def negated(self, x: Value) -> Value:
        """The opposite of a condition; a known one is folded."""
        return FALSE if x == TRUE else TRUE if x == FALSE else self.op("xor", x, TRUE)

    def select(self, condition: Value, x: Value, y: Value) -> Value:
        if condition in (TRUE, FALSE):
            return x if condition == TRUE else y
        return self.emit(f"select {condition}, {x}, {y}", x.type)

    def cast(self, name: str, x: Value, type_: str) -> Value:
        """`sext`, `fptrunc`, `bitcast`, ... to a type; nothing where it is the same type."""
        return x if x.type == type_ else self.emit(f"{name} {x} to {type_}", type_)

    def call(self, name: str, result: str, args: Sequence[Value]) -> Value:
        """Call a function of this module or an intrinsic; intrinsics (llvm.*) are declared on their own."""
        if name.startswith("llvm."):
            self.declarations.add(f"declare {result} @{name}({', '.join(arg.type for arg in args)})")
        text = f"call {result} @{name}({', '.join(map(str, args))})"
        if result == "void":
            self.line(text)
            return Value("", "void")
        return self.emit(text, result)

    def intrinsic(self, name: str, x: Value, *rest: Value) -> Value:
        """An overloaded intrinsic on one vector or scalar type, such as `llvm.fma` or `llvm.sqrt`."""
        return self.call(f"{name}.{mangle(x.type)}", x.type, (x, *rest))

    def gep(self, base: Value, element: str, index: Value) -> Value:
        """The address of element `index` of an array of `element`s at `base`."""
        return self.emit(f"getelementptr {element}, ptr {base.text}, {index}", "ptr")

    def load(self, address: Value, type_: str, align: int, suffix: str = "") -> Value:
        return self.emit(f"load {type_}, ptr {address.text}, align {align}{suffix}", type_)

    def store(self, value: Value, address: Value, align: int, suffix: str = "") -> None:
        self.line(f"store {value}, ptr {address.text}, align {align}{suffix}")

    def masked_load(self, address: Value, type_: str, align: int, mask: Value, fill: Value | None = None) -> Value:
        """The elements of a vector whose lanes are in the mask, `fill` (zero) in the others, whose memory is not touched."""
        element, lanes = element_of(type_), lanes_of(type_)
        given = [mask, constant(0, element, lanes) if fill is None else fill]
        if lanes > 1:
            return self.call(f"llvm.masked.load.{mangle(type_)}.p0", type_, [address, i32(align), *given])
        found = self.call(
            f"llvm.masked.load.v1{mangle(type_)}.p0",
            f"<1 x {type_}>",
            [address, i32(align), *map(self._only_lane, given)],
        )
        return self.extract(found, 0)

    def masked_store(self, value: Value, address: Value, align: int, mask: Value) -> None:
        """Write the elements of a vector whose lanes are in the mask."""
        suffix = f"{mangle(value.type)}.p0"
        if lanes_of(value.type) == 1:
            suffix, value, mask = f"v1{suffix}", self._only_lane(value), self._only_lane(mask)
        self.call(f"llvm.masked.store.{suffix}", "void", [value, address, i32(align), mask])

    def _only_lane(self, x: Value) -> Value:
        """A scalar as what LLVM wants behind a mask: a vector."""
        return self.emit(f"insertelement <1 x {x.type}> poison, {x}, i64 0", f"<1 x {x.type}>")

    def prefetch(self, address: Value, for_writing: bool = False) -> None:
        """Ask for the cache line of an address, which need not be one that may be read: to write to it soon, or to have it near."""
        flags = [i32(1), i32(3), i32(1)] if for_writing else [i32(0), i32(2), i32(1)]
        self.call("llvm.prefetch.p0", "void", [address, *flags])

    def splat(self, x: Value, lanes: int) -> Value:
        """A vector with `x` in every lane; `x` itself for one lane."""
        if lanes == 1:
            return x
        type_ = vector(x.type, lanes)
        first = self.emit(f"insertelement {type_} poison, {x}, i64 0", type_)
        return self.emit(f"shufflevector {first}, {type_} poison, <{lanes} x i32> zeroinitializer", type_)

    def extract(self, x: Value, lane: int) -> Value:
        """One lane of a vector; a scalar is its only lane."""
        if not x.type.startswith("<"):
            return x
        return self.emit(f"extractelement {x}, i64 {lane}", element_of(x.type))

    def shuffle(self, order: Sequence[int], x: Value, y: Value | None = None) -> Value:
        """Lanes of a vector, or of two numbered through; a scalar for one lane of one."""
        if len(order) == 1 and y is None:
            return self.extract(x, order[0])
        second = f"{x.type} poison" if y is None else str(y)
        lanes = ", ".join(f"i32 {lane}" for lane in order)
        type_ = vector(element_of(x.type), len(order))
        return self.emit(f"shufflevector {x}, {second}, <{len(order)} x i32> <{lanes}>", type_)

    def joined(self, x: Value, y: Value) -> Value:
        """The lanes of two vectors, or two scalars, as one vector."""
        lanes = lanes_of(x.type)
        if lanes > 1:
            return self.shuffle(range(2 * lanes), x, y)
        first = self.emit(f"insertelement <2 x {x.type}> poison, {x}, i64 0", f"<2 x {x.type}>")
        return self.emit(f"insertelement {first}, {y}, i64 1", first.type)

    def iota(self, element: str, lanes: int) -> Value:
        """The constant vector 0, 1, 2, ... of an integer type."""
        if lanes == 1:
            return Value("0", element)
        return Value("<" + ", ".join(f"{element} {lane}" for lane in range(lanes)) + ">", vector(element, lanes))

    # --- integer arithmetic that folds constants --------------------------------------------------

    def add(self, x: Value, y: Value) -> Value:
        if x.text == "0":
            return y
        if y.text == "0":
            return x
        if is_literal(x) and is_literal(y):
            return Value(str(int(x.text) + int(y.text)), x.type)
        return self.op("add nsw", x, y)

    def sub(self, x: Value, y: Value) -> Value:
        if y.text == "0":
            return x
        if is_literal(x) and is_literal(y):
            return Value(str(int(x.text) - int(y.text)), x.type)
        return self.op("sub nsw", x, y)

    def round_down(self, x: Value, unit: int) -> Value:
        """The largest multiple of `unit` that is not above x, which is not negative."""
        if is_literal(x):
            return Value(str(int(x.text) // unit * unit), x.type)
        if unit & (unit - 1) == 0:
            return self.op("and", x, Value(str(-unit), x.type))
        return self.sub(x, self.op("srem", x, Value(str(unit), x.type)))

    def mul(self, x: Value, y: Value) -> Value:
        if x.text == "0" or y.text == "1":
            return x
        if y.text == "0" or x.text == "1":
            return y
        if is_literal(x) and is_literal(y):
            return Value(str(int(x.text) * int(y.text)), x.type)
        return self.op("mul nsw", x, y)

    def divided(self, x: Value, by: Value) -> tuple[Value, Value]:
        """Quotient and remainder of signed integers."""
        if by.text == "1":
            return x, i64(0)
        return self.op("sdiv", x, by), self.op("srem", x, by)

    def minimum(self, x: Value, y: Value) -> Value:
        """The smaller of two signed integers."""
        return self.intrinsic("llvm.smin", x, y)

    # --- control flow ------------------------------------------------------------------------------

    @property
    def block(self) -> str:
        """The label of the block being written."""
        return self._block

    @property
    def region(self) -> int:
        """The loop or branch being written; what is computed in it is known until it ends."""
        return self._regions[-1]

    def is_open(self, region: int) -> bool:
        """Whether a region has not ended."""
        return region in self._regions

    @contextmanager
    def _inside(self) -> Iterator[None]:
        self._counter += 1
        self._regions.append(self._counter)
        yield
        self._regions.pop()

    def label(self, hint: str) -> str:
        """A fresh block label."""
        self._counter += 1
        return f"{hint}{self._counter}"

    def start(self, label: str) -> None:
        """Begin a block."""
        self._lines.append(f"{label}:")
        self._block = label

    def br(self, label: str) -> None:
        self.line(f"br label %{label}")

    def cond_br(self, condition: Value, then: str, otherwise: str) -> None:
        self.line(f"br {condition}, label %{then}, label %{otherwise}")

    def phi(self, type_: str, incoming: Iterable[tuple[Value, str]]) -> Value:
        pairs = ", ".join(f"[ {value.text}, %{label} ]" for value, label in incoming)
        return self.emit(f"phi {type_} {pairs}", type_)

    def ret(self, value: Value | None = None) -> None:
        self.line("ret void" if value is None else f"ret {value}")

    @contextmanager
    def loop(
        self, begin: Value, end: Value, step: Value | int = 1, carried: Sequence[Value] = (), strided: bool = False
    ) -> Iterator[Loop]:
        """`for (i = begin; i < end; i += step)` with loop-carried values.

        Inside, read `loop.index` and `loop.carried`, and assign `loop.next` (a list as long as `carried`).
        After it, `loop.results` holds the carried values.

        `strided` is for innermost loops whose addresses are products of the index and a distance known in a run only: LLVM steps
        pointers there. It would look at every address and every bound of all loops, for a third of the time of code generation,
        where nothing is gained: others show it their index through `llvm.expect` only, which says nothing and costs nothing, and
        count on from there.
        """
        step_value = i64(step) if isinstance(step, int) else step
        head, body, done = self.label("head"), self.label("body"), self.label("done")
        before = self._block
        self.br(head)
        self.start(head)
        self._counter += 1
        counter = Value(f"%v{self._counter}", begin.type)
        names = []
        for value in carried:
            self._counter += 1
            names.append(Value(f"%v{self._counter}", value.type))
        mark = len(self._lines)  # phis are written here once the latch is known
        going = self.cmp("icmp slt", counter, end)
        self.cond_br(going, body, done)
        self.start(body)
        index = counter if strided else self.intrinsic("llvm.expect", counter, Value("0", begin.type))
        loop = Loop(index, names)
        with self._inside():
            yield loop
        following = self.op("add nsw", index, step_value)
        latch = self._block
        self.br(head)
        assert len(loop.next) == len(names), "a carried value was not given its next value"
        phis = [f"  {counter.text} = phi {counter.type} [ {begin.text}, %{before} ], [ {following.text}, %{latch} ]"]
        phis += [
            f"  {name.text} = phi {name.type} [ {first.text}, %{before} ], [ {later.text}, %{latch} ]"
            for name, first, later in zip(names, carried, loop.next, strict=True)
        ]
        self._lines[mark:mark] = phis
        self.start(done)
        loop.results = list(names)

    @contextmanager
    def when(self, condition: Value) -> Iterator[None]:
        """`if (condition) { ... }` without values flowing out."""
        if condition == TRUE:
            yield
            return
        then, done = self.label("then"), self.label("endif")
        self.cond_br(condition, then, done)
        self.start(then)
        with self._inside():
            yield
        self.br(done)
        self.start(done)

    def finish(self) -> str:
        """The text of the whole function."""
        return "\n".join([self._header, "start:", *self._entry, *self._lines, "}", ""])


class Loop:
    """State of a loop being written; see `FunctionWriter.loop`."""

    def __init__(self, index: Value, carried: list[Value]) -> None:
        self.index = index
        self.carried = carried
        self.next: list[Value] = []
        self.results: list[Value] = []


def is_literal(value: Value) -> bool:
    return value.text.lstrip("-").isdigit()


def element_of(type_: str) -> str:
    """The element type of a vector type; a scalar type is its own."""
    return type_[1:-1].split(" x ")[1] if type_.startswith("<") else type_


def lanes_of(type_: str) -> int:
    return int(type_[1:].split(" x ")[0]) if type_.startswith("<") else 1


def like(type_: str, element: str) -> str:
    """The type with the same number of lanes and another element type."""
    return vector(element, lanes_of(type_))


def mangle(type_: str) -> str:
    """The suffix of an overloaded intrinsic: `v16f32`, `f64`, `i64`, `p0`."""
    element = element_of(type_)
    short = {"float": "f32", "double": "f64", "ptr": "p0"}.get(element, element)
    lanes = lanes_of(type_)
    return short if lanes == 1 else f"v{lanes}{short}"
