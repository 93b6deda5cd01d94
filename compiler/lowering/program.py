"""A whole graph to a Program: clusters become launches, control flow becomes branches and loops."""

from __future__ import annotations

from collections.abc import Sequence, Set

from pierian.compiler.dim import Dim, at_most, product, symbol
from pierian.compiler.errors import LoweringError
from pierian.compiler.fusion.cost import Limits
from pierian.compiler.fusion.fuser import fuse
from pierian.compiler.graph.graph import Graph
from pierian.compiler.graph.node import Node, Value
from pierian.compiler.kernel.program import Branch, Copy, Loop, Program, Step, launches
from pierian.compiler.location import describe
from pierian.compiler.lowering.buffers import Buffers
from pierian.compiler.lowering.carry import carry
from pierian.compiler.lowering.in_place import Update, plan_updates
from pierian.compiler.lowering.kernel import KernelBuilder
from pierian.compiler.lowering.memory import plan_memory
from pierian.compiler.lowering.record import Record
from pierian.compiler.options import CompileOptions
from pierian.compiler.shape import TensorType


def lower(
    graph: Graph,
    options: CompileOptions | None = None,
    updates: Sequence[tuple[int, int | None]] = (),
    record: Record | None = None,
) -> Program:
    """The program of a portable graph: no compositions, no variables left; its inputs and outputs are the program's.

    Args:
        graph: what to lower.
        options: whether operators share kernels, and temporaries memory.
        updates: the outputs that replace the value of a variable, by position, each with the input that is its old value.
        record: takes notes.

    Raises:
        LoweringError: an operator without native code.
    """
    program = Program(graph.name, dims=graph.dims())
    options = options or CompileOptions()
    lowerer = _Lowerer(program, Limits(fuse=options.fuse), record or Record())
    program.steps = lowerer.graph(graph, {new for new, _ in updates} if options.in_place else set())
    program.checks = _checks(graph)
    if options.fuse and any(launch.kernel.kind == "contraction" for launch in launches(program.steps)):
        from pierian.compiler.lowering.chains import (
            join_products,  # takes a while to import, and not all programs have products
        )
        from pierian.compiler.lowering.grids import gather_grids

        gather_grids(program, lowerer.record)
        join_products(program, lowerer.record)
    if options.in_place:
        names = [(program.outputs[new], "" if old is None else program.inputs[old]) for new, old in updates]
        plan_updates(program, [Update(new, old) for new, old in names])
    plan_memory(program, options)
    return program


class _Lowerer:
    def __init__(self, program: Program, limits: Limits, record: Record) -> None:
        self.program = program
        self.record = record
        self.buffers = Buffers(program)
        self.limits = limits
        self._counters = 0

    def graph(self, graph: Graph, first: Set[int] = frozenset()) -> list[Step]:
        """The top level: inputs and outputs are the caller's arrays. A value that is several outputs is computed right into one of
        those at positions `first` if there is one, and copied to the others."""
        for value in graph.inputs:
            self.buffers.add_input(value, value.node.name)
        outputs = [
            self.buffers.add_output(value.type, name)
            for value, name in zip(graph.outputs, graph.output_names, strict=True)
        ]
        return self._body(graph, outputs, first)

    def _body(self, graph: Graph, targets: Sequence[str], preferred: Set[int] = frozenset()) -> list[Step]:
        """The steps that compute a graph whose inputs have buffers, its outputs into `targets`."""
        steps: list[Step] = []
        for node in graph.nodes:
            if node.op.name == "constant" and node.output not in self.buffers:
                self.buffers.add_constant(node.output, node.attributes["value"])
        pairs = list(zip(graph.outputs, targets, strict=True))
        pairs = [pairs[i] for i in sorted(range(len(pairs)), key=lambda i: i not in preferred)]
        copied = [(value, target) for value, target in pairs if not self._bind_target(value, target)]
        fusion = fuse(graph, self.limits)
        self.record.add_fusion(fusion)
        for cluster in fusion.clusters:
            if cluster.kind == "single" and cluster.root.op.kernel_rule is None:
                self._single(cluster.root, steps)
            else:
                launches = KernelBuilder(cluster, fusion, self.buffers).build()
                self.record.add(launches, cluster)
                steps.extend(launches)
        first: list[Step] = []
        for value, target in copied:
            # What was handed in can be copied at once, so that nothing that overwrites it has to wait.
            given = _alias_source(value).node.op.name in ("placeholder", "constant")
            (first if given else steps).append(Copy(target, self.buffers.name(value)))
        return [*first, *steps]

    def _bind_target(self, value: Value, target: str) -> bool:
        """Let `value` be computed right into `target`; False where it has another place already."""
        source = _alias_source(value)
        if source in self.buffers:
            return False
        self.buffers.bind(value, target)
        if source is not value:
            self.buffers.bind(source, self.buffers.alias(target, source.type))
        return True

    def _single(self, node: Node, steps: list[Step]) -> None:
        if node.op.alias:
            if node.output not in self.buffers:
                base = self.buffers.name(node.inputs[0])
                self.buffers.bind(node.output, self.buffers.alias(base, node.output.type))
        elif node.op.name == "cond":
            self._cond(node, steps)
        elif node.op.name == "while_loop":
            self._while(node, steps)
        elif node.op.name == "scan":
            self._scan(node, steps)
        else:
            raise LoweringError(
                f"operator {node.op.name!r} has no native code", where=node.describe(), location=node.location
            )

    # --- control flow ------------------------------------------------------------------------------------------

    def _bind_parameters(self, body: Graph, names: Sequence[str]) -> None:
        for value, name in zip(body.inputs, names, strict=True):
            self.buffers.bind(value, name)

    def _cond(self, node: Node, steps: list[Step]) -> None:
        predicate, *operands = node.inputs
        names = [self.buffers.name(value) for value in operands]
        targets = [self.buffers.temporary(value) for value in node.outputs]
        branches = []
        for body in node.bodies:
            self._bind_parameters(body, names)
            branches.append(self._body(body, targets))
        steps.append(Branch(self.buffers.name(predicate), branches[0], branches[1]))

    def _while(self, node: Node, steps: list[Step]) -> None:
        count: int = node.attributes["state"]
        condition, body = node.bodies
        state = [self.buffers.temporary(value) for value in node.outputs]
        steps.extend(
            Copy(target, self.buffers.name(value)) for target, value in zip(state, node.inputs[:count], strict=True)
        )
        names = state + [self.buffers.name(value) for value in node.inputs[count:]]
        self._bind_parameters(condition, names)
        flag = self.buffers.new_temporary(condition.outputs[0].type)
        header = self._body(condition, [flag])
        self._bind_parameters(body, names)
        following = [self.buffers.new_temporary(value.type) for value in body.outputs]
        inside = carry(self.program, self._body(body, following), list(zip(state, following, strict=True)))
        steps.append(Loop(self._counter(), node.attributes.get("maximum_iterations"), flag, header, inside))

    def _scan(self, node: Node, steps: list[Step]) -> None:
        count: int = node.attributes["state"]
        sequences: int = node.attributes["sequences"]
        length: Dim = node.attributes["length"]
        (body,) = node.bodies
        counter = self._counter()
        at = symbol(counter) if not node.attributes.get("reverse") else length - 1 - symbol(counter)
        state = [self.buffers.temporary(value) for value in node.outputs[:count]]
        steps.extend(
            Copy(target, self.buffers.name(value)) for target, value in zip(state, node.inputs[:count], strict=True)
        )
        slices = [
            self._slice(self.buffers.name(value), parameter.type, at)
            for value, parameter in zip(
                node.inputs[count : count + sequences], body.inputs[count : count + sequences], strict=True
            )
        ]
        captured = [self.buffers.name(value) for value in node.inputs[count + sequences :]]
        self._bind_parameters(body, state + slices + captured)
        following = [self.buffers.new_temporary(value.type) for value in body.outputs[:count]]
        stacked = [
            self._slice(self.buffers.temporary(value), out.type, at)
            for value, out in zip(node.outputs[count:], body.outputs[count:], strict=True)
        ]
        inside = self._body(body, following + stacked)
        inside = carry(self.program, inside, list(zip(state, following, strict=True)))
        steps.append(Loop(counter, length, "", [], inside))

    def _slice(self, base: str, type_: TensorType, at: Dim) -> str:
        return self.buffers.alias(base, type_, at * product(type_.shape))

    def _counter(self) -> str:
        self._counters += 1
        return f"%t{self._counters}"


def _alias_source(value: Value) -> Value:
    while value.node.op.alias:
        value = value.node.inputs[0]
    return value


def _checks(graph: Graph) -> list[tuple[Dim, Dim, str]]:
    """Sizes that must be equal when the program runs, each with the operator and line that ask for it; no size may be negative."""
    if not graph.dims():
        return []
    found: dict[tuple[Dim, Dim], str] = {}
    for node in graph.walk():
        rule = node.op.constraints_rule
        pairs = [at_most(0, dim) for value in node.outputs for dim in value.shape if not isinstance(dim, int)]
        if rule is not None:
            pairs += rule(*(value.type for value in node.inputs), **node.attributes)
        for first, second in pairs:
            if first != second:
                place = describe(node.location)
                found.setdefault((first, second), f"{node.op.name} {node.name!r}" + (f" at {place}" if place else ""))
    return [(first, second, reason) for (first, second), reason in found.items()]
