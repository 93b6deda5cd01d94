"""All tests check graphs after every pass. `--update-golden` writes golden files anew; look at the difference."""

import gc
import os
import platform
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from pierian.compiler.frozen import replace
from pierian.compiler.target.features import Target, host

os.environ.setdefault("PIERIAN_VERIFY", "1")
os.environ["PIERIAN_CACHE"] = "off"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="write golden files instead of comparing with them")


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """Compares a text with a file in `golden/` beside the test."""

    def compare(name: str, text: str) -> None:
        path = Path(request.path).parent / "golden" / name
        if request.config.getoption("--update-golden"):
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
        assert path.read_text() == text, f"{name} has changed; run pytest --update-golden if that is meant"

    return compare


@pytest.fixture
def peak_of() -> Callable[[Callable[[], object]], int]:
    """The most bytes, arrays included, that a call holds at once of those that it allocates; nothing looks for cycles meanwhile."""

    def measure(call: Callable[[], object]) -> int:
        gc.disable()
        tracemalloc.start()
        try:
            call()
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
            gc.enable()

    return measure


@pytest.fixture
def target_of() -> Callable[..., Target]:
    """A plain processor of an instruction set, with the sizes of caches that are given: those for code that this machine may run."""
    is_x86 = platform.machine() in ("x86_64", "AMD64")
    x86 = host().triple if is_x86 else "x86_64-unknown-linux-gnu"
    targets = {
        "avx512": Target(x86, "x86-64-v4", "-prefer-256-bit", "avx512", 64, 32, True, True),
        "avx2": Target(x86, "haswell", "+avx2,+fma", "avx2", 32, 16, True, True),
        "sse2": Target(x86, "x86-64", "+sse2", "sse2", 16, 16, False, False),
        "scalar": Target(x86, "x86-64", "+sse2", "scalar", 8, 16, False, False),
        "neon": Target("aarch64-unknown-linux-gnu", "generic", "+neon", "neon", 16, 32, True, False),
        "riscv": Target("riscv64-unknown-linux-gnu", "generic-rv64", "+m,+a,+f,+d,+c", "scalar", 8, 16, False, False),
    }
    return lambda isa, **sizes: replace(targets[isa], **sizes)


@pytest.fixture
def runs_here() -> Callable[[str], bool]:
    """Whether this machine can run what is compiled for `target_of` an instruction set."""
    known = ("scalar", "sse2", "avx2", "avx512")
    own = host().isa if platform.machine() in ("x86_64", "AMD64") else ""
    return lambda isa: isa in known[: known.index(own) + 1] if own in known else False
