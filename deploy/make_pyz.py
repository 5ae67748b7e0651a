"""`make pyz`: client and runtime as one file that needs nothing but python3.

The file holds our packages and the pure-Python dependencies; compiled ones stay out, so gzip falls
back to zlib. The server is not in it: it has compiled dependencies, install it with pip.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
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
        subprocess.run(
            [
                sys.executable, "-m", "pip", "--disable-pip-version-check", "-q", "install",
                "--target", str(stage), "--only-binary", ":all:",
                "-c", str(CHECKOUT / "constraints.txt"), "httpx",
            ],
            check=True,
        )  # fmt: skip
        if compiled := list(stage.rglob("*.so")):
            sys.exit(f"make_pyz: compiled files would not load from a zip: {compiled}")
        shutil.rmtree(stage / "bin", ignore_errors=True)
        for package in PACKAGES:
            shutil.copytree(
                CHECKOUT / package, stage / package, ignore=shutil.ignore_patterns("__pycache__")
            )
        (stage / "__main__.py").write_text(
            "import sys\nfrom pyreg.__main__ import main\nsys.exit(main())\n"
        )
        unfinished = TARGET.with_suffix(".part")
        zipapp.create_archive(
            stage, unfinished, interpreter="/usr/bin/env python3", compressed=True
        )
        unfinished.rename(TARGET)
    print(f"{TARGET} ({TARGET.stat().st_size // 1024} kB)")


if __name__ == "__main__":
    main()
