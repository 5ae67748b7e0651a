"""`make pyz`: client and runtime as one file that needs nothing but python3.

The file holds our packages, which need the standard library only; gzip is read by zlib, since ISA-L
is compiled. The server is not in it: it has compiled dependencies, install it with pip.
"""

from __future__ import annotations

import shutil
import tempfile
import zipapp
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
PACKAGES = ("ocispec", "client", "runtime", "pyreg")
TARGET = CHECKOUT / "dist" / "pyreg.pyz"


def main() -> None:
    TARGET.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        stage = Path(scratch)
        for package in PACKAGES:
            shutil.copytree(
                CHECKOUT / package, stage / package, ignore=shutil.ignore_patterns("__pycache__")
            )
        (stage / "__main__.py").write_text("from pyreg.__main__ import entry\n\nentry()\n")
        unfinished = TARGET.with_suffix(".part")
        zipapp.create_archive(
            stage, unfinished, interpreter="/usr/bin/env python3", compressed=True
        )
        unfinished.chmod(0o755)
        unfinished.rename(TARGET)
    print(f"{TARGET} ({TARGET.stat().st_size // 1024} kB)")


if __name__ == "__main__":
    main()
