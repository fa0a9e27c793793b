"""What the interop tests share: the binary under test, named by HRM_BIN."""

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def hrm():
    """Runs the hrm binary with arguments and returns its standard output; a failing command fails the test."""
    binary = os.environ.get("HRM_BIN", str(ROOT / "target" / "release" / "hrm"))

    def run(*arguments, cwd=None):
        done = subprocess.run([binary, *map(str, arguments)], cwd=cwd, capture_output=True, text=True)
        assert done.returncode == 0, f"hrm {arguments} ended with {done.returncode}: {done.stderr}"
        return done.stdout

    return run
