"""What an operator is: its schema and the slots for its rules. Definitions live in `pierian.compiler.ops`.

A rule is a plain function; what it receives is the same everywhere: input *types* (infer, constraints), input
*values* with a builder `b` (gradient, expand), NumPy *arrays* (reference), scalar expressions (scalar) or an
output index (index_map, lower), always followed by the attributes as keyword arguments.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from pierian.compiler.errors import ArgumentError

Rule = Callable[..., Any]


class Parameter:
    """One parameter of an operator's schema.

    `kind` is `tensor` (one input), `optional` (an input or None), `tensors` (a sequence of inputs) or `attribute`.
    """

    __slots__ = ("default", "kind", "name", "required")

    def __init__(self, name: str, kind: str, required: bool, default: Any) -> None:
        self.name = name
        self.kind = kind
        self.required = required
        self.default = default


class Operator:
    """An operator: callable by users, a key of nodes, and the home of all rules about it.

    Rule slots, each settable as a decorator (`@add.gradient`):
        infer(*types, **attributes) -> TensorType or a tuple of them: the outputs' types, or ShapeError/DTypeError.
        constraints(*types, **attributes) -> pairs of sizes that must be equal when the program runs.
        gradient(b, node, *output_gradients) -> a gradient or None for each input.
        reference(*arrays, **attributes) -> NumPy result(s); for folding and tests only.
        expand(b, *values, **attributes) -> value(s): makes this a composition; no gradient or lowering needed.
        Exactly one of the following says how a primitive becomes native code:
        scalar(s, *scalars, **attributes) -> scalar: pointwise with broadcasting.
        index_map(index, *types, **attributes) -> index into the one input: movement without a copy.
        alias: True where the output has the input's bytes in the same order (reshape).
        reduction: the combiner's name; attributes `axis` (sorted tuple) and `keepdims` say which axes.
        contract(*types, **attributes) -> (k extents, maps): a sum of products; maps(index, k) gives lhs index and rhs index, and
            perhaps extents by axis: lhs counts as zero where its index is outside of them.
        lower(k, node, index) -> scalar: any other pull: the element of the output at an index.
        kernel(k, node): writes a whole kernel by itself (scatter).
        pieces(*types, **attributes) -> for each input and axis, where its first element lies in the output, and how far apart its
        elements do: beside `lower`, for an operator whose inputs fill the output between them, so that each may be computed right
        where it will lie.
    """

    def __init__(self, function: Callable[..., Any], **facts: Any) -> None:
        functools.update_wrapper(self, function)
        self.name: str = facts.pop("name", function.__name__)
        self.function = function
        self.parameters = _parameters(function)
        self.parameter_names = tuple(parameter.name for parameter in self.parameters)
        self.tensor_parameters = tuple(p for p in self.parameters if p.kind != "attribute")
        self.attribute_parameters = tuple(p for p in self.parameters if p.kind == "attribute")
        self.only_single_tensors = all(p.kind == "tensor" for p in self.tensor_parameters)
        self.outputs: int = facts.pop("outputs", 1)
        self.commutative: bool = facts.pop("commutative", False)
        self.idempotent: bool = facts.pop("idempotent", False)
        self.promote: str | None = facts.pop(
            "promote", None
        )  # None, "common", "float", or "branches" (the first is a condition)
        self.stateful: bool = facts.pop("stateful", False)  # never folded, merged or dropped as unused when fetched
        self.random: bool = facts.pop("random", False)
        self.ulp: float | None = facts.pop("ulp", 0.0)  # numeric contract against the reference; None: random
        self.cost: int = facts.pop("cost", 1)  # scalar operations per element, for fusion decisions
        self.reads: bool = facts.pop("reads", True)  # False where the types of the inputs are all it looks at
        self.reduction: str | None = facts.pop("reduction", None)
        self.alias: bool = facts.pop("alias", False)
        self.differentiable: bool = facts.pop("differentiable", True)
        self.has_bodies: bool = facts.pop("bodies", False)
        self.public: bool = facts.pop("public", True)  # whether users import it
        self.onnx: str | None = facts.pop("onnx", None)
        self.samples: list[Any] = facts.pop("samples", [])  # test cases: input types and attributes
        self.infer_rule: Rule | None = facts.pop("infer", None)
        self.constraints_rule: Rule | None = facts.pop("constraints", None)
        self.gradient_rule: Rule | None = facts.pop("gradient", None)
        self.reference_rule: Rule | None = facts.pop("reference", None)
        self.expand_rule: Rule | None = facts.pop("expand", None)
        self.scalar_rule: Rule | None = facts.pop("scalar", None)
        self.index_map_rule: Rule | None = facts.pop("index_map", None)
        self.contract_rule: Rule | None = facts.pop("contract", None)
        self.lower_rule: Rule | None = facts.pop("lower", None)
        self.kernel_rule: Rule | None = facts.pop("kernel", None)
        self.pieces_rule: Rule | None = facts.pop("pieces", None)
        self.normalize_rule: Rule | None = facts.pop("normalize", None)
        if facts:
            raise ArgumentError(f"unknown facts for operator {self.name!r}", got=", ".join(facts))

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        from pierian.compiler.graph.builder import current  # the builder imports this module

        return current().call(self, args, kwargs)

    def __repr__(self) -> str:
        return f"<operator {self.name}>"

    def __reduce__(self) -> str | tuple[Any, ...]:
        return _find, (self.name,)

    @property
    def is_composite(self) -> bool:
        """True where a pass replaces it by other operators before lowering."""
        return self.expand_rule is not None

    def infer(self, rule: Rule) -> Rule:
        """Decorator: output types from input types. See the class."""
        self.infer_rule = rule
        return rule

    def normalize(self, rule: Rule) -> Rule:
        """Decorator: `normalize(types, attributes) -> attributes`, canonical attributes before inference."""
        self.normalize_rule = rule
        return rule

    def constraints(self, rule: Rule) -> Rule:
        """Decorator: sizes that must be equal at run time."""
        self.constraints_rule = rule
        return rule

    def gradient(self, rule: Rule) -> Rule:
        """Decorator: the vector-Jacobian product."""
        self.gradient_rule = rule
        return rule

    def reference(self, rule: Rule) -> Rule:
        """Decorator: NumPy semantics."""
        self.reference_rule = rule
        return rule

    def expand(self, rule: Rule) -> Rule:
        """Decorator: the composition."""
        self.expand_rule = rule
        return rule

    def scalar(self, rule: Rule) -> Rule:
        """Decorator: the pointwise expression."""
        self.scalar_rule = rule
        return rule

    def index_map(self, rule: Rule) -> Rule:
        """Decorator: the output index to input index map."""
        self.index_map_rule = rule
        return rule

    def contract(self, rule: Rule) -> Rule:
        """Decorator: the index maps of a sum of products."""
        self.contract_rule = rule
        return rule

    def lower(self, rule: Rule) -> Rule:
        """Decorator: the output element at an index."""
        self.lower_rule = rule
        return rule

    def kernel(self, rule: Rule) -> Rule:
        """Decorator: a whole kernel."""
        self.kernel_rule = rule
        return rule

    def pieces(self, rule: Rule) -> Rule:
        """Decorator: where each input lies in the output."""
        self.pieces_rule = rule
        return rule


def _find(name: str) -> Operator:
    from pierian.compiler.ops.definition import operator_named

    return operator_named(name)


def _parameters(function: Callable[..., Any]) -> tuple[Parameter, ...]:
    """The schema, read off the function itself: `inspect.signature` would be a twentieth of what it takes to load the package."""
    code, annotations = function.__code__, function.__annotations__
    names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    positional, given = names[: code.co_argcount], function.__defaults__ or ()
    defaults = dict(zip(positional[len(positional) - len(given) :], given, strict=True))
    defaults.update(function.__kwdefaults__ or {})
    result = []
    for name in names:
        annotation = str(annotations.get(name)).replace(" ", "")
        if "Sequence[Tensor]" in annotation:
            kind = "tensors"
        elif annotation == "Tensor|None":
            kind = "optional"
        elif annotation == "Tensor":
            kind = "tensor"
        else:
            kind = "attribute"
        result.append(Parameter(name, kind, name not in defaults, defaults.get(name)))
    return tuple(result)
