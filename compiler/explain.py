"""Why a graph became the kernels it became: for each its operators, what ended it, its schedule, its work and predicted time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pierian.compiler.compile import Plan
from pierian.compiler.cost import Peak, kernel_bits, kernel_bytes
from pierian.compiler.dim import Dim, evaluate, substitute, symbols
from pierian.compiler.frozen import frozen
from pierian.compiler.fusion.cluster import Cluster
from pierian.compiler.graph.node import Node
from pierian.compiler.kernel.program import Launch, Program, launches, written
from pierian.compiler.location import describe
from pierian.compiler.lowering.in_place import step_overwrites
from pierian.compiler.schedule.ways import predicted_ways
from pierian.compiler.schedule.work import scheduled_flops


@frozen
class Explanation:
    """One launch of a program.

    Attributes:
        kernel: the kernel's name; launches of equal kernels share it.
        kind: one of the loop IR's kinds of kernels.
        nodes: the graph's nodes inside, with the operator of each.
        lines: the user's lines behind them.
        ends: for each value it stores, why the kernel that reads it is another one.
        schedule: how code generation went about it.
        ways: for other ways than register tiles the time predicted for them, as a share of that of tiles.
        in_place: pairs of arrays (new, old) that are one memory, or may be.
        flops, bytes: its work, formulas where sizes are open.
        reads, writes: bytes by the model that fusion decides by; None for kernels that are put together later.
        seconds, bound: what the work cannot go below on a machine of the given peak, and why; 0 where sizes are open.
    """

    kernel: str
    kind: str
    nodes: tuple[tuple[str, str], ...]
    lines: str
    ends: dict[str, str]
    schedule: tuple[str, ...]
    ways: Mapping[str, float]
    in_place: tuple[tuple[str, str], ...]
    flops: Dim
    bytes: Dim
    seconds: float = 0.0
    bound: str = ""
    reads: Dim | None = None
    writes: Dim | None = None

    def as_json(self) -> dict[str, Any]:
        """Numbers and texts; formulas as texts."""
        return {
            "kernel": self.kernel, "kind": self.kind, "nodes": [list(pair) for pair in self.nodes], "lines": self.lines,
            "ends": self.ends, "schedule": list(self.schedule), "in_place": [list(pair) for pair in self.in_place],
            "flops": _plain(self.flops), "bytes": _plain(self.bytes), "seconds": self.seconds, "bound": self.bound,
            "ways": dict(self.ways),
            "reads": None if self.reads is None else _plain(self.reads),
            "writes": None if self.writes is None else _plain(self.writes),
        }  # fmt: skip


def explain(plan: Plan, sizes: Mapping[str, int], peak: Peak, node: str = "") -> list[Explanation]:
    """The launches of a program in their order, those that hold the node named `node` alone where one is given.

    Args:
        plan: what to explain.
        sizes: values of open sizes; without them work stays a formula and no time is predicted.
        peak: what the machine can do.
        node: part of the name of a node after all passes, or of an operator.
    """
    order = {one: position for position, one in enumerate(plan.graph.walk())}
    traffic = plan.record.traffic()
    found = [_explain(plan, launch, sizes, peak, order, traffic) for launch in launches(plan.program.steps)]
    return [one for one in found if not node or any(node in part for pair in one.nodes for part in pair)]


def _explain(
    plan: Plan,
    launch: Launch,
    sizes: Mapping[str, int],
    peak: Peak,
    order: Mapping[Node, int],
    traffic: Mapping[int, tuple[Dim, Dim]],
) -> Explanation:
    name, code = plan.kernels[launch.kernel]
    cluster = plan.record.clusters.get(id(launch))
    actual = dict(zip(launch.kernel.dims, launch.dims, strict=True))
    work = scheduled_flops(launch.kernel, plan.target), kernel_bytes(launch.kernel)
    flops, bytes_ = (substitute(one, actual) for one in work)
    # What depends on the turn of a loop counts as in the first one.
    counters = {one: 0 for size in (flops, bytes_) for one in symbols(size) if one.startswith("%")}
    known = {**sizes, **counters}
    seconds, bound = 0.0, ""
    if symbols(flops) | symbols(bytes_) <= known.keys():
        flops, bytes_ = evaluate(flops, known), evaluate(bytes_, known)
        seconds, bound = peak.shortest(flops, bytes_, kernel_bits(launch.kernel))
    moved = traffic.get(id(cluster), (None, None))
    reads, writes = (None if size is None else _where_known(size, sizes) for size in moved)
    ways = predicted_ways(launch.kernel, plan.target) if launch.kernel.kind == "contraction" else {}
    members = [] if cluster is None else sorted(cluster.members, key=lambda one: order.get(one, len(order)))
    return Explanation(
        name, launch.kernel.kind, tuple((one.name, one.op.name) for one in members), describe(launch.location),
        {} if cluster is None else _ends(plan, cluster), code.schedule, ways,
        _shared_memory(plan.program, launch), flops, bytes_, seconds, bound, reads, writes,
    )  # fmt: skip


def _where_known(size: Dim, sizes: Mapping[str, int]) -> Dim:
    return evaluate(size, sizes) if symbols(size) <= sizes.keys() else size


def _ends(plan: Plan, cluster: Cluster) -> dict[str, str]:
    """For each stored value why it is in memory."""
    found = {}
    for value in cluster.stores:
        graph = value.node.graph
        handed_out = graph is not None and value in graph.outputs
        reason = plan.record.refusals.get(value.node)
        if handed_out:
            found[value.name] = "a result of the graph" if graph is plan.graph else "a result of a body"
        elif reason is not None:
            found[value.name] = reason
        else:
            readers = {node.op.name for node in value.uses}
            found[value.name] = f"read from memory by {', '.join(sorted(readers))}" if readers else "nobody reads it"
    return found


def _shared_memory(program: Program, step: Launch) -> tuple[tuple[str, str], ...]:
    """The arrays that this step may write over what it reads, by the memory plan and by `in_place`."""
    bases = dict.fromkeys(map(program.base, step.buffers))
    stored = set(map(program.base, written(step)))
    found = []
    for new in stored:
        for old in bases:
            if old in stored or not _are_one(program, new, old):
                continue
            if step_overwrites(program, step, old, new):
                found.append((new, old))
    return tuple(sorted(found))


def _are_one(program: Program, new: str, old: str) -> bool:
    if program.in_place.get(new) == old:
        return True

    def place(name: str) -> tuple[str, Dim] | None:
        buffer = program.buffers[name]
        return {"temporary": (buffer.host, buffer.offset), "output": (name, 0)}.get(buffer.kind)

    return place(new) is not None and place(new) == place(old)


def _plain(size: Dim) -> int | str:
    return size if isinstance(size, int) else str(size)
