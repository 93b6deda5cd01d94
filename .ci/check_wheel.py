"""Checks that a wheel holds every module and data file that git knows of in the four rooms."""

import subprocess
import sys
import zipfile
from pathlib import Path

ROOMS = {"compiler": "pierian/compiler", "runtime": "pierian/runtime", "proto": "pierian/proto", "pierian": "pierian"}


def main() -> None:
    (wheel,) = Path(sys.argv[1]).glob("pierian-*.whl")
    held = set(zipfile.ZipFile(wheel).namelist())
    listed = subprocess.run(["git", "ls-files", *ROOMS], capture_output=True, text=True, check=True).stdout.split()
    missing = []
    for path in listed:
        room, _, rest = path.partition("/")
        if rest.endswith((".py", ".pyi", ".proto", ".typed")) and f"{ROOMS[room]}/{rest}" not in held:
            missing.append(path)
    if missing:
        sys.exit("missing from the wheel:\n  " + "\n  ".join(missing))
    print(f"{wheel.name}: {len(held)} files, none missing")


main()
