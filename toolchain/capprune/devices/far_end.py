"""One connection over SSH: commands, files and error messages.

It uses the user's `ssh` and `sftp`, so keys, agents, ~/.ssh/config and jump hosts work as on the command line. All
calls share one connection, so that a password is asked for once.
"""

from __future__ import annotations

import contextlib
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from capprune.devices.answers import MESSAGE_BYTES, ask_text, lines, wait_bounded
from capprune_runtime.errors import DeviceError, LinkLost, MissingExtra

PATIENCE_S = 15  # to connect; three times as long for a connection that does not answer
LOGIN_S = 60  # for a login with a key
TYPED_LOGIN_S = 600  # for a login that may ask for a password
COMMAND_S = 120  # for a command, in which a slow card may have to remove many files
SILENCE_S = 900  # longest time without a line of a run; a slow device needs minutes to load a large bundle
SLOWEST_BYTES_S = 20_000  # of copying files
_SSH_FAILED = 255  # the exit code of ssh itself

# Message of ssh: its meaning, and a hint.
_MEANINGS = (
    ("Could not resolve hostname", "there is no such host", "check the name; on a Pi, `hostname -I` shows its address"),
    ("Connection refused", "the host does not answer SSH", "on a Pi: sudo raspi-config, Interface Options, SSH"),
    ("timed out", "the host does not answer", "is it switched on and on the same network?"),
    ("No route to host", "the host does not answer", "is it switched on and on the same network?"),
    (
        "Host key verification failed",
        "the host's key is not known, or not the one that is known",
        "connect once by hand",
    ),
    (
        "REMOTE HOST IDENTIFICATION",
        "the host has another key than before",
        "if it was set up again: ssh-keygen -R HOST",
    ),
    ("Permission denied", "the host does not let this user in", "ssh-copy-id USER@HOST, or check the user's name"),
)


class FarEnd:
    """A host that ssh can reach. Use it in a `with`, which closes the connection at the end.

    Args:
        user: Login name; None for ssh's default.
        host: Its name or address, or a name of ~/.ssh/config.
        port: Its port; None for ssh's default.
    """

    def __init__(self, user: str | None, host: str, port: int | None) -> None:
        self.host = host
        self._target = host if user is None else f"{user}@{host}"
        self._port = port
        self._folder: Path | None = None

    def __enter__(self) -> FarEnd:
        for program in ("ssh", "sftp"):
            if shutil.which(program) is None:
                raise MissingExtra(f"the program {program} is not installed", hint="sudo apt install openssh-client")
        self._folder = Path(tempfile.mkdtemp(prefix="capprune-"))
        try:
            self.open()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.hang_up()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    def open(self) -> None:
        """Connect, or connect again.

        Raises:
            DeviceError: The host cannot be reached, refuses the login, or does not answer in time.
        """
        self.hang_up()
        # The master goes to the background after login; ControlPersist ends it if this process is killed.
        command = ["ssh", *self._options(), *self._port_option("-p"), "-o", "ControlMaster=yes", "-o", "ControlPersist=60",
                   "-N", "-f", self._target]  # fmt: skip
        with tempfile.TemporaryFile() as says:  # a pipe would stay open in the background
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=says, stderr=says)
            try:
                code = wait_bounded(process, says, self._target, TYPED_LOGIN_S if _may_ask() else LOGIN_S)
            finally:
                process.kill()
                process.wait()
            says.seek(0)
            if code:
                raise connection_error(self._target, says.read(MESSAGE_BYTES).decode(errors="replace"))

    def hang_up(self) -> None:
        """Close the connection, if there is one."""
        if self._folder is not None and self._socket.exists():
            command = ["ssh", *self._options(), "-O", "exit", self._target]
            with contextlib.suppress(subprocess.TimeoutExpired):
                subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                               timeout=PATIENCE_S, check=False)  # fmt: skip

    def run(self, script: str, *, seconds: float | None = None) -> subprocess.CompletedProcess[str]:
        """Run a script in the remote shell, in the user's home; the caller checks its exit code.

        Args:
            script: Script for the remote shell.
            seconds: Time limit; `COMMAND_S` if not given.

        Raises:
            LinkLost: The connection broke.
            DeviceError: It takes too long or prints too much.
        """
        done = ask_text(self._shell(script), self._target, seconds=COMMAND_S if seconds is None else seconds)
        if done.returncode == _SSH_FAILED:
            raise lost(self._target, done.stderr)
        return done

    def lines(self, script: str, complaints: list[str], photos: int, waits_s: float = 0.0) -> Iterator[bytes]:
        """Run a script and yield its lines as they arrive.

        Args:
            script: Script for the remote shell.
            complaints: Receives the script's stderr and then its exit code, when the script has ended.
            photos: Number of photos or rounds that it prints about.
            waits_s: Longest time that it waits on purpose.

        Raises:
            LinkLost: The connection broke.
            DeviceError: It is silent for `SILENCE_S` or prints too much.
        """

        def ended(code: int, says: str) -> None:
            complaints.extend((says, str(code)))
            if code == _SSH_FAILED:
                raise lost(self._target, says)

        yield from lines(self._shell(script), self._target, silence_s=SILENCE_S + waits_s, photos=photos, ended=ended)

    def put(self, files: Mapping[str, Path], folders: Sequence[str] = ()) -> str | None:
        """Copy files to the remote host.

        Args:
            files: Local path of each file by its path below the remote home.
            folders: Folders to make first.

        Returns:
            None, or the error message of sftp.

        Raises:
            LinkLost: The connection broke.
            DeviceError: It takes far too long.
        """
        batch = [f'mkdir "{folder}"' for folder in folders]
        batch += [f'put "{_quoted(source)}" "{place}"' for place, source in files.items()]
        command = ["sftp", *self._options(), *self._port_option("-P"), "-q", "-b", "-", self._target]
        size_bytes = sum(source.stat().st_size for source in files.values())
        seconds = COMMAND_S + size_bytes / SLOWEST_BYTES_S
        done = ask_text(command, self._target, seconds=seconds, stdin="\n".join([*batch, ""]))
        if done.returncode == _SSH_FAILED:
            raise lost(self._target, done.stderr)
        return done.stderr.strip() or f"exit code {done.returncode}" if done.returncode else None

    @property
    def _socket(self) -> Path:
        assert self._folder is not None, "use it in a with"
        return self._folder / "link"

    def _options(self) -> list[str]:
        return [
            *("-o", f"ControlPath={self._socket}"),
            *("-o", f"BatchMode={'no' if _may_ask() else 'yes'}"),
            *("-o", f"ConnectTimeout={PATIENCE_S}"),
            *("-o", f"ServerAliveInterval={PATIENCE_S}"),
            *("-o", "ServerAliveCountMax=3"),
        ]

    def _port_option(self, flag: str) -> list[str]:
        return [] if self._port is None else [flag, str(self._port)]

    def _shell(self, script: str) -> list[str]:
        # sh reads the script, whatever the user's shell; it uses the open connection, or a new one if that broke
        options = [*self._options(), *self._port_option("-p"), "-o", "ControlMaster=no", "-T"]
        return ["ssh", *options, self._target, f"exec sh -c {shlex.quote(script)}"]


def _may_ask() -> bool:
    """Return whether ssh can ask the user for a password."""
    return sys.stdin is not None and sys.stdin.isatty()


def connection_error(target: str, says: str) -> DeviceError:
    """Return the error about a failed connection.

    Args:
        target: The host.
        says: Output of ssh.
    """
    last = (says.strip().splitlines() or ["nothing"])[-1]
    for sign, what, hint in _MEANINGS:
        if sign in says:
            return DeviceError(what, where=target, found=last, hint=hint)
    return DeviceError("the host cannot be reached", where=target, found=last, hint=f"try it by hand: ssh {target}")


def lost(target: str, says: str) -> LinkLost:
    """Return the error about a broken connection, with ssh's last output."""
    last = (says.strip().splitlines() or ["nothing"])[-1]
    return LinkLost("the link to the device was lost", where=target, found=last)


def _quoted(path: Path) -> str:
    """Quote a local path for a batch of sftp, where `*?[` would be patterns."""
    return "".join(f"\\{character}" if character in '\\"*?[]' else character for character in str(path))
