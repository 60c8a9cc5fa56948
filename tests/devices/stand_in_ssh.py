"""A stand-in for the programs `ssh` and `sftp`: what the host would run, runs here, in a folder instead of its home.

It is put on PATH. It shows what the workstation makes of a device's answers; the real programs are tested in test_ssh.py.
"""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from pathlib import Path
from typing import Any

HOME = Path(os.environ.get("STAND_IN_HOME", "."))


def install(state: Path, monkeypatch: Any) -> Path:
    """Put this file on PATH as `ssh` and `sftp`; returns the host's home."""
    programs, home = state / "bin", state / "home"
    programs.mkdir(parents=True)
    home.mkdir()
    for program in ("ssh", "sftp"):
        (programs / program).write_text(f"#!{sys.executable}\n{Path(__file__).read_text()}")
        (programs / program).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("STAND_IN_HOME", str(home))
    return home


def ssh(arguments: list[str]) -> int:
    if "-N" in arguments or "-O" in arguments:  # to open and to close the connection
        login = HOME / "login"
        if not login.exists() or "-N" not in arguments:
            return 0
        os.execvp("sh", ["sh", str(login)])  # no child, which would go on after this process is killed
    os.chdir(HOME)
    os.execvp("sh", ["sh", "-c", arguments[-1]])


def sftp(batch: str) -> int:
    for line in batch.splitlines():
        command, *words = shlex.split(line)
        if command == "mkdir":
            (HOME / words[0]).mkdir()
        else:
            shutil.copyfile(words[0], HOME / words[1])
    return 0


if __name__ == "__main__":
    sys.exit(ssh(sys.argv[1:]) if Path(sys.argv[0]).name == "ssh" else sftp(sys.stdin.read()))
