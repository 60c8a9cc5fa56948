"""What can be known of an APK without a phone: manifest, signature, alignment, and every member of the platform it uses."""

from __future__ import annotations

import re
import struct
import zipfile
from collections.abc import Iterable
from pathlib import Path

from apk import data_offset
from compile_java import CORE_RESOURCES
from compile_native import PAGE_BYTES
from dex import Dexed, references
from machine import RUNTIME, BuildFailed, run

MOST_APP_BYTES = 1_500_000  # without the interpreter and the bundle
_MIN_SDK = 24
_BUNDLE = "assets/bundle.capz"
_LOAD = 1
# Of Java 8, and in Android later than 24.
_LATER_JAVA = re.compile(
    r"java/(nio/file/|time/|lang/invoke/|util/Base64|lang/String\.join|lang/ThreadLocal\.withInitial|"
    r"lang/reflect/(Executable|Parameter)|\w+/\w+\.(toUnsigned|parseUnsigned|compareUnsigned|divideUnsigned|remainderUnsigned))"
)
# Members above the least API level, and the class that looks at the level before it uses them.
_GUARDED = {("android/os/PowerManager.getCurrentThermalStatus", "org/capprune/demo/Phone")}
BADGING = (
    "package: name='org.capprune.demo'",
    "sdkVersion:'24'",
    "targetSdkVersion:'36'",
    "launchable-activity: name='org.capprune.demo.MainActivity'",
)


def check_apk(apk: Path, dexed: Dexed, bundle: bytes, abis: tuple[str, ...]) -> dict[str, object]:
    """Check a signed APK; what there is to say of it.

    Raises:
        BuildFailed: Something is not as it must be.
    """
    check_badging(run(["aapt", "dump", "badging", apk]), run(["aapt", "dump", "permissions", apk]), abis)
    _check_signature(run(["apksigner", "verify", "-v", "--min-sdk-version", _MIN_SDK, apk]))
    used = references(dexed)
    check_references(used, dexed)
    check_dex(run(["dexdump", "-d", dexed.dex]), used)
    sizes = _check_content(apk, dexed.dex.read_bytes(), bundle, abis)
    own = apk.stat().st_size - len(bundle) - sizes
    _require(own <= MOST_APP_BYTES, "the app without interpreter and bundle", f"at most {MOST_APP_BYTES} bytes", own)
    return {"APK": f"{apk} ({apk.stat().st_size:,} bytes)", "app without interpreter and bundle": f"{own:,} bytes",
            "bundle": f"{len(bundle):,} bytes", "interpreters": f"{sizes:,} bytes ({', '.join(abis)})",
            "members of the platform used": len({member for member, _ in used})}  # fmt: skip


def _require(holds: bool, what: str, expected: object, found: object) -> None:
    if not holds:
        raise BuildFailed(f"{what}\n  expected  {expected}\n  found     {found}")


def check_badging(badging: str, permissions: str, abis: Iterable[str]) -> None:
    """The manifest as aapt reads it: package, levels, the first screen, the processors; no permission."""
    for line in BADGING:
        _require(line in badging, "the manifest", line, badging)
    for abi in abis:
        _require(f"'{abi}'" in badging, "native code", abi, badging)
    _require("uses-permission" not in permissions, "permissions", "none", permissions)


def _check_signature(said: str) -> None:
    for scheme in ("v2", "v3"):
        line = re.search(rf"Verified using {scheme} scheme.*: (\w+)", said)
        _require(line is not None and line[1] == "true", f"signature {scheme}", "true", said)


def check_references(used: list[tuple[str, str]], dexed: Dexed) -> None:
    """Nothing that Android 24 lacks, unless its user looks first."""
    levels = {f"{member.owner[1:-1]}.{member.name}": member.level for member in dexed.members}
    for member, user in used:
        _require(not member.startswith("MISSING"), f"{user} uses", "what the stubs and Java 8 have", member)
        _require(not _LATER_JAVA.match(member), f"{user} uses", "what Android 24 has", member)
        name = re.split("[(:]", member)[0]
        late = levels.get(name, 0) > _MIN_SDK and (name, user) not in _GUARDED
        _require(not late, f"{user} uses without a look at the level", f"level {_MIN_SDK}", name)


def check_dex(dump: str, used: list[tuple[str, str]]) -> None:
    """The dex file calls of Android what its classes call, and nothing else."""
    names = {re.split("[(:]", member)[0].rpartition(".")[2] for member, _ in used if member.startswith("android/")}
    called = set(re.findall(r" L(android/[\w/$]+);\.([\w<>]+):", dump))
    _require(bool(called), "the dex file", "calls of Android", "none")
    for owner, name in sorted(called):
        _require(name in names, "the dex file calls", "what its classes call", f"{owner}.{name}")


def _check_content(apk: Path, dex: bytes, bundle: bytes, abis: tuple[str, ...]) -> int:
    """Entries, how they lie and what is in them; the bytes of the interpreters."""
    interpreters = 0
    with zipfile.ZipFile(apk) as archive:
        _require(archive.read("classes.dex") == dex, "classes.dex", "what was dexed", "other bytes")
        _require(archive.read(_BUNDLE) == bundle, _BUNDLE, "the bundle", "other bytes")
        for name, source in CORE_RESOURCES.items():
            found = archive.read(name) if name in archive.namelist() else b""
            _require(found == source.read_bytes(), name, f"the bytes of {source}", "other bytes or nothing")
        libraries = [entry for entry in archive.infolist() if entry.filename.endswith(".so")]
        _require(len(libraries) == 2 * len(abis), "libraries", 2 * len(abis), len(libraries))
        for entry in (*libraries, archive.getinfo(_BUNDLE), archive.getinfo("resources.arsc")):
            _require(entry.compress_type == zipfile.ZIP_STORED, entry.filename, "stored", "compressed")
            _require(data_offset(apk, entry) % 4 == 0, entry.filename, "aligned to 4", data_offset(apk, entry))
        for entry in libraries:
            place = data_offset(apk, entry)
            _require(place % PAGE_BYTES == 0, entry.filename, f"aligned to {PAGE_BYTES}", place)
            alignments = load_alignments(archive.read(entry))
            _require(min(alignments) >= PAGE_BYTES, f"{entry.filename}, segments", PAGE_BYTES, alignments)
            interpreters += entry.file_size if entry.filename.endswith(RUNTIME) else 0
    return interpreters


def load_alignments(library: bytes) -> list[int]:
    """The alignment of every segment of a 64-bit ELF file that is loaded."""
    table, entry_bytes, count = (*struct.unpack_from("<Q", library, 32), *struct.unpack_from("<HH", library, 54))
    headers = [table + n * entry_bytes for n in range(count)]
    return [
        struct.unpack_from("<Q", library, place + 48)[0]
        for place in headers
        if struct.unpack_from("<I", library, place)[0] == _LOAD
    ]
