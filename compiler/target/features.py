"""What code generation needs to know of a processor: vector width, registers, instructions it may use."""

from __future__ import annotations

import functools
import platform

from pierian.compiler.frozen import frozen

# Bytes that memory and caches move at once.
CACHE_LINE = 64


@frozen
class Target:
    """A machine to generate code for.

    Attributes:
        triple: LLVM target triple.
        cpu: LLVM processor name.
        features: LLVM feature string such as `+avx2,+fma`.
        isa: `avx512`, `avx2`, `sse2`, `neon` or `scalar`.
        vector_bytes: width of one vector register.
        vector_registers: how many there are.
        has_fma: fused multiply-add is one instruction.
        has_masks: masked loads and stores are cheap.
        l1, l2, l3: data cache sizes in bytes, per core for l1 and l2.
    """

    triple: str
    cpu: str
    features: str
    isa: str
    vector_bytes: int
    vector_registers: int
    has_fma: bool
    has_masks: bool
    l1: int = 32 * 1024
    l2: int = 1024 * 1024
    l3: int = 8 * 1024 * 1024

    @property
    def is_wide(self) -> bool:
        """Whether a vector register is as wide as a cache line: one load reads all of it."""
        return self.vector_bytes >= CACHE_LINE

    def lanes(self, bits: int) -> int:
        """How many elements of `bits` bits one vector register holds; at least one."""
        return max(1, self.vector_bytes * 8 // bits)


@functools.lru_cache(maxsize=1)
def host() -> Target:
    """The machine this process runs on."""
    from pierian.compiler.target import llvm
    from pierian.compiler.target.machine import cache_sizes

    features = llvm.host_features()
    machine = platform.machine().lower()
    if machine in ("x86_64", "amd64"):
        if features.get("avx512f") and features.get("avx512vl") and features.get("avx512dq"):
            isa, width, registers = "avx512", 64, 32
        elif features.get("avx2") and features.get("fma"):
            isa, width, registers = "avx2", 32, 16
        else:
            isa, width, registers = "sse2", 16, 16
    elif machine in ("aarch64", "arm64"):
        isa, width, registers = "neon", 16, 32
    else:
        isa, width, registers = "scalar", 8, 16
    flattened = ",".join(f"{'+' if present else '-'}{name}" for name, present in features.items())
    if isa == "avx512":
        flattened += ",-prefer-256-bit"
    l1, l2, l3 = cache_sizes()
    return Target(
        triple=llvm.host_triple(),
        cpu=llvm.host_cpu(),
        features=flattened,
        isa=isa,
        vector_bytes=width,
        vector_registers=registers,
        has_fma=isa in ("avx512", "avx2", "neon"),
        has_masks=isa in ("avx512", "avx2"),
        l1=l1,
        l2=l2,
        l3=l3,
    )
