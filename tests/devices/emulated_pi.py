"""A Raspberry Pi but for the silicon: a Debian root for ARM, emulated by QEMU, behind a real sshd on loopback.

The root lies in one folder; the /proc/cpuinfo of a Pi is mounted in sshd's own namespace. The one thing outside is QEMU's
registration with the kernel, which is taken back.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from loopback import USER, Host, checked, serving
from loopback import lacking as lacking_sshd

BINFMT = Path("/proc/sys/fs/binfmt_misc")
UID = 1500

_MASK = r"\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff"
_COMMON = ("libstdc++6", "libgcc-s1", "bash", "dash", "coreutils", "libc-bin", "zlib1g", "python3-minimal")


@dataclass(frozen=True)
class Kind:
    """A Debian for an ARM machine, and the Python packages that a user would install there."""

    release: str
    arch: str  # Debian's name
    machine: str  # uname's, and QEMU's
    python: str
    libraries: str  # /usr/lib/…
    platforms: tuple[str, ...]
    wheels: tuple[str, ...]
    debian: tuple[str, ...]
    cpu: str  # QEMU's name
    cpuinfo: str

    @property
    def name(self) -> str:
        return f"{self.release}-{self.arch}"


def _cpuinfo(part: str, model: str) -> str:
    core = "processor\t: {}\nBogoMIPS\t: 108.00\nFeatures\t: fp asimd\nCPU implementer\t: 0x41\nCPU architecture: 8\n"
    cores = (
        core.format(number) + f"CPU variant\t: 0x0\nCPU part\t: {part}\nCPU revision\t: 3\n\n" for number in range(4)
    )
    return "".join(cores) + f"Revision\t: c03115\nModel\t\t: {model}\n"


_WIDE = ("manylinux_2_28_aarch64", "manylinux_2_27_aarch64", "manylinux2014_aarch64")
PI_2 = _cpuinfo("0xc07", "Raspberry Pi 2 Model B Rev 1.1")
PI_4 = _cpuinfo("0xd08", "Raspberry Pi 4 Model B Rev 1.5")
PI_5 = _cpuinfo("0xd0b", "Raspberry Pi 5 Model B Rev 1.0")
BOOKWORM = Kind("bookworm", "arm64", "aarch64", "3.11", "aarch64-linux-gnu", _WIDE, ("numpy", "Pillow", "ai-edge-litert"),
                ("libpython3.11-stdlib",), "cortex-a72", PI_4)  # fmt: skip
TRIXIE = Kind("trixie", "arm64", "aarch64", "3.13", "aarch64-linux-gnu", _WIDE, ("numpy", "Pillow", "ai-edge-litert"),
              ("libpython3.13-stdlib",), "cortex-a76", PI_5)  # fmt: skip
ARMHF = Kind("bookworm", "armhf", "armv7l", "3.11", "arm-linux-gnueabihf", ("manylinux_2_34_armv7l",), ("tflite-runtime",),
             ("libpython3.11-stdlib", "python3-numpy", "python3-pil"), "cortex-a7", PI_2)  # fmt: skip
_MAGIC = {
    "arm64": ("aarch64", r"\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00"),
    "armhf": ("arm", r"\x7fELF\x01\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\x28\x00"),
}


def lacking() -> str | None:
    """What this machine lacks to play a Pi; None when it lacks nothing."""
    for program in ("mmdebstrap", "qemu-aarch64-static", "qemu-arm-static"):
        if shutil.which(program) is None:
            return f"there is no {program} (Debian: mmdebstrap, arch-test, qemu-user-static)"
    return lacking_sshd()


@contextlib.contextmanager
def emulated_pi(kind: Kind, root: Path, folder: Path) -> Iterator[Host]:
    """A Pi that answers SSH.

    Args:
        kind: What the root is.
        root: Where it lies.
        folder: For keys, configuration and log.
    """
    setup = (
        f"mount -t proc proc {root}/proc\nmount --bind {root}/cpuinfo {root}/proc/cpuinfo\n"
        f"mount --bind /dev/null {root}/dev/null"
    )
    with (
        emulation(kind.arch),
        serving(folder, root=root, uid=UID, setup=setup, variables=f"QEMU_CPU={kind.cpu}") as host,
    ):
        yield host


def build_root(kind: Kind, root: Path) -> None:
    """A Debian root without a line of foreign code run: packages are unpacked, wheels are laid beside them.

    Args:
        kind: What it is to be.
        root: To be made; beside it, `wheels` keeps what a user would download.
    """
    packages = ",".join((*_COMMON, *kind.debian))
    command = ["mmdebstrap", "--quiet", f"--arch={kind.arch}", "--variant=extract", f"--include={packages}",
               kind.release, str(root), _mirror()]  # fmt: skip
    checked(command)
    wheels = root.parent / "wheels"
    platforms = [option for platform in kind.platforms for option in ("--platform", platform)]
    machine = ["--only-binary=:all:", "--python-version", kind.python, "--implementation", "cp",
               "--abi", "cp" + kind.python.replace(".", ""), *platforms, *(["--no-deps"] if kind is ARMHF else [])]  # fmt: skip
    pip = [sys.executable, "-m", "pip"]
    checked([*pip, "download", "--quiet", *machine, "--dest", str(wheels), *kind.wheels])
    target = root / "usr/local/lib" / f"python{kind.python}" / "dist-packages"
    checked([*pip, "install", "--quiet", "--no-index", "--find-links", str(wheels), "--no-compile", *machine,
             "--target", str(target), *kind.wheels])  # fmt: skip
    for library in ("blas/libblas.so.3", "lapack/liblapack.so.3"):  # links that a maintainer script would have made
        path = root / "usr/lib" / kind.libraries / library
        if path.exists() and not (link := path.parents[1] / path.name).exists():
            link.symlink_to(f"{Path(library).parent}/{path.name}")
    _fill(kind, root)


def _fill(kind: Kind, root: Path) -> None:
    """The user, and the little of /sys that interpreters look for: without it one crashes, with the host's another does."""
    home = root / "home" / USER
    home.mkdir(parents=True)
    os.chown(home, UID, UID)
    with (root / "etc" / "passwd").open("a") as passwd:
        passwd.write(f"{USER}:x:{UID}:{UID}::/home/{USER}:/bin/sh\n")
    cpus = root / "sys" / "devices" / "system" / "cpu"
    for number in range(4):
        for place, text in {"cpufreq/cpuinfo_min_freq": "600000", "cpufreq/cpuinfo_max_freq": "1800000",
                            "cpufreq/scaling_governor": "ondemand", "topology/core_id": str(number),
                            "topology/physical_package_id": "0"}.items():  # fmt: skip
            path = cpus / f"cpu{number}" / place
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text + "\n")
    for name in ("possible", "present"):
        (cpus / name).write_text("0-3\n")
    (root / "proc").mkdir(exist_ok=True)
    (root / "dev" / "null").touch()
    (root / "cpuinfo").write_text(kind.cpuinfo)
    root.chmod(0o755)


@contextlib.contextmanager
def emulation(arch: str) -> Iterator[None]:
    """The kernel hands programs of an architecture to QEMU; taken back where it did not before."""
    name, magic = _MAGIC[arch]
    mounted = (BINFMT / "register").exists()
    if not mounted:
        checked(["mount", "-t", "binfmt_misc", "binfmt_misc", str(BINFMT)])
    ours = BINFMT / f"capprune-{name}-{os.getpid()}"  # two test runs at once must not take each other's back
    # F: the interpreter is opened now and found in any root; the latest registration goes first
    (BINFMT / "register").write_text(f":{ours.name}:M::{magic}:{_MASK}:/usr/bin/qemu-{name}-static:PF\n")
    try:
        yield
    finally:
        ours.write_text("-1")
        if not mounted and not list(BINFMT.glob("capprune-*")):
            checked(["umount", str(BINFMT)])


def _mirror() -> str:
    """The mirror that this machine itself installs from."""
    listed = checked(["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages"]).splitlines()
    return next((line for line in listed if "security" not in line), "http://deb.debian.org/debian")
