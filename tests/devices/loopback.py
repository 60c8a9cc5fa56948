"""A real sshd on loopback, in a mount namespace of its own: a user `pi`, a private /run, and whatever a test mounts.

Nothing outside its folder is touched, and the namespace ends with it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

USER = "pi"
SSHD = Path("/usr/sbin/sshd")


def lacking() -> str | None:
    """What this machine lacks to run an sshd of its own; None when it lacks nothing."""
    if os.geteuid() != 0:
        return "an sshd in a namespace of its own needs root"
    for program in ("ssh", "sftp", "ssh-keygen", "unshare", "setarch"):
        if shutil.which(program) is None:
            return f"there is no {program} (Debian: openssh-client, util-linux)"
    return None if SSHD.is_file() else "there is no sshd (Debian: openssh-server)"


@dataclass(frozen=True)
class Host:
    """A running sshd.

    Attributes:
        port: On 127.0.0.1.
        home: Of the user, as this machine sees it.
        programs: A folder for PATH whose ssh and sftp know the key, and nothing of the user's own configuration.
        process: The namespace's first process.
    """

    port: int
    home: Path
    programs: Path
    process: int

    @property
    def spec(self) -> str:
        return f"ssh:{USER}@127.0.0.1:{self.port}"

    def left_behind(self) -> list[str]:
        """What lies in the home that was empty, once what is ending has ended."""
        for _ in range(50):
            if not (found := sorted(path.name for path in self.home.iterdir())):
                break
            time.sleep(0.1)
        return found

    def cut(self) -> None:
        """Kill sshd's side of every connection, which is what a far side sees of a network that goes away."""
        self._kill(b"sshd: pi")

    def kill_run(self) -> int:
        """Kill the runtime on the far side, as a kernel without memory does; how many there were."""
        return self._kill(b"capprune_runtime.pyz\0run")

    def _kill(self, title: bytes) -> int:
        killed = 0
        for number in _descendants(self.process):
            with contextlib.suppress(OSError):
                if title in Path(f"/proc/{number}/cmdline").read_bytes():
                    os.kill(number, signal.SIGKILL)
                    killed += 1
        return killed


def _descendants(process: int) -> list[int]:
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parents[int(path.parent.name)] = int(path.read_text().rpartition(")")[2].split()[1])
    found, fresh = [], [process]
    while fresh:
        fresh = [child for child, parent in parents.items() if parent in fresh]
        found += fresh
    return found


@contextlib.contextmanager
def serving(
    folder: Path, *, root: Path | None = None, uid: int = 0, setup: str = "", variables: str = "", port: int = 0
) -> Iterator[Host]:
    """Run sshd.

    Args:
        folder: For keys, configuration, log and home; its parents must be root's alone where there is a root.
        root: What the login is locked into; None for this machine.
        uid: The user's number.
        setup: Shell commands in the namespace before sshd starts.
        variables: What sshd sets for the login, `NAME=value …`.
        port: Of an earlier call; 0 for a free one.
    """
    port = port or _free_port()
    home = folder / "home" if root is None else root / "home" / USER
    inside = str(home) if root is None else f"/home/{USER}"
    home.mkdir(parents=True, exist_ok=True)
    os.chown(home, uid, uid)
    for key in ("host", "user"):
        if not (folder / key).exists():
            checked(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / key)])
    (folder / "passwd").write_text(f"{USER}:*:{uid}:{uid}::{inside}:/bin/sh\n" + Path("/etc/passwd").read_text())
    (folder / "sshd_config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {folder}/host\nPidFile none\nStrictModes no\nPermitRootLogin yes\n"
        f"AuthorizedKeysFile {folder}/user.pub\nPasswordAuthentication no\nUsePAM no\nSubsystem sftp internal-sftp\n"
        + (f"SetEnv {variables}\n" if variables else "")
        + (f"Match User {USER}\n  ChrootDirectory {root}\n" if root is not None else "")
    )
    (folder / "start").write_text(
        "set -e\nmount --make-rprivate /\nmount -t tmpfs tmpfs /run\nmkdir /run/sshd\n"
        f"mount --bind {folder}/passwd /etc/passwd\n{setup}\n"
        f"exec {SSHD} -D -f {folder}/sshd_config -E {folder}/log\n"
    )
    command = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", str(folder / "start")]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL) as process:
        try:
            _wait_for(port, process)
            yield Host(port, home, _programs(folder), process.pid)
        finally:
            process.kill()


def _programs(folder: Path) -> Path:
    (folder / "config").write_text(
        f"Host *\n  IdentityFile {folder}/user\n  IdentitiesOnly yes\n  UserKnownHostsFile {folder}/known_hosts\n"
        "  StrictHostKeyChecking accept-new\n"
    )
    programs = folder / "bin"
    programs.mkdir(exist_ok=True)
    for program in ("ssh", "sftp"):
        if not (programs / program).exists():
            (programs / program).write_text(f'#!/bin/sh\nexec {shutil.which(program)} -F {folder}/config "$@"\n')
            (programs / program).chmod(0o755)
    return programs


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    for _ in range(100):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        assert process.poll() is None, "sshd did not start"
        time.sleep(0.1)
    raise AssertionError("sshd does not answer")


def checked(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command[0]}: {done.stderr.strip() or done.stdout.strip()}"
    return done.stdout
