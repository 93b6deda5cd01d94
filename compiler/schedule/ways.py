"""What the cost models say of the ways to compute a contraction, for people."""

from __future__ import annotations

import math

from pierian.compiler.kernel.nodes import Kernel
from pierian.compiler.schedule.collapse import collapse
from pierian.compiler.schedule.dots import dots_time, guess, tiled_time
from pierian.compiler.schedule.few_rows import exchanged
from pierian.compiler.schedule.lanewise import lanewise_share
from pierian.compiler.schedule.roles import classify
from pierian.compiler.schedule.winograd import find_winograd
from pierian.compiler.target.features import Target


def predicted_ways(kernel: Kernel, target: Target) -> dict[str, float]:
    """For each way that is possible beside register tiles the time it is predicted to take as a share of theirs. Which one is taken
    is decided by these, and by rules where time is not the point: rows so few that memory sets the pace, and results so few that
    the difference does not matter. Open sizes are guessed."""
    winograd = find_winograd(kernel, target)
    found = {} if winograd is None else {"winograd": winograd.share}
    if winograd is not None and winograd.packed:
        return found  # filters that have been transformed can be used in no other way
    kernel = collapse(kernel)
    roles = classify(kernel)
    tiles = tiled_time(roles, target)(guess(roles.m.extent), guess(roles.n.extent))
    for name, turned in (("inner products", roles), ("inner products of columns", exchanged(roles))):
        time = dots_time(kernel, turned, target)
        if time is not None and 0 < tiles < math.inf:
            found[name] = time(guess(turned.m.extent)) / tiles
    lanewise = lanewise_share(kernel, roles, target)
    if lanewise is not None:
        found["a point in each lane"] = lanewise
    return found
