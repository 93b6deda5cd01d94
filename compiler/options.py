"""What the compiler does, as values."""

from __future__ import annotations

import os
from dataclasses import dataclass, field


def verification_is_asked() -> bool:
    """Whether the environment has the compiler check what it makes at every step."""
    return os.environ.get("PIERIAN_VERIFY", "0") not in ("", "0")


@dataclass(frozen=True, slots=True)
class CompileOptions:
    """Options of compilation.

    Attributes:
        disable: names of passes that are left out.
        fold_limit: elements above which a constant result is not computed ahead of time.
        verify: check the graph after every pass (`PIERIAN_VERIFY=1` turns it on, and the check of LLVM's modules).
        fuse: whether operators share kernels.
        reuse_memory: whether temporaries take over the memory of those nobody reads any more.
        in_place: whether variables and temporaries are overwritten where nobody needs the old value any more.
        profile: whether the program measures the time of every kernel (see `pierian.runtime.profile`).
    """

    disable: tuple[str, ...] = ()
    fold_limit: int = 4096
    verify: bool = field(default_factory=verification_is_asked)
    fuse: bool = True
    reuse_memory: bool = True
    in_place: bool = True
    profile: bool = False
