"""All tests check graphs after every pass. `--update-golden` writes golden files anew; look at the difference."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

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
