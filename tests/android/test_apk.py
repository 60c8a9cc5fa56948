"""The APK that is built without Google's Maven: the same bytes twice, and every check of it can fail."""

from __future__ import annotations

import dataclasses
import re
import zipfile
from pathlib import Path

import apk
import build_apk
import check_apk
import machine
import pytest
import stubs
from compile_native import SHIM
from desktop_jvm import DesktopJvm

pytestmark = pytest.mark.slow

ABIS = machine.ABIS
GRADLE = machine.ANDROID_DEMO / "app" / "build.gradle.kts"


@dataclasses.dataclass(frozen=True)
class Apk:
    signed: Path
    unsigned: Path
    built: build_apk.Built
    bundle: bytes


@pytest.fixture(scope="module")
def made(android_parts: Path, tmp_path_factory: pytest.TempPathFactory) -> Apk:
    work = tmp_path_factory.mktemp("apk")
    bundle = b"stands in for a packed bundle, which nothing opens here" * 1000
    built = build_apk.build_unsigned(bundle, ABIS, android_parts, work / "build")
    build_apk.sign(built.unsigned, work / "app.apk", work)
    return Apk(work / "app.apk", built.unsigned, built, bundle)


def test_signed_apk_passes_every_check_and_is_small(made: Apk) -> None:
    facts = check_apk.check_apk(made.signed, made.built.dexed, made.bundle, ABIS)
    own = int(re.sub(r"\D", "", str(facts["app without interpreter and bundle"])))
    assert 50_000 < own < check_apk.MOST_APP_BYTES


def test_unsigned_apk_is_the_same_bytes_twice(made: Apk, android_parts: Path, tmp_path: Path) -> None:
    again = build_apk.build_unsigned(made.bundle, ABIS, android_parts, tmp_path / "elsewhere")
    assert again.unsigned.read_bytes() == made.unsigned.read_bytes()


def test_apk_with_another_bundle_is_refused(made: Apk) -> None:
    with pytest.raises(machine.BuildFailed, match="bundle"):
        check_apk.check_apk(made.signed, made.built.dexed, made.bundle + b"x", ABIS)


def test_library_off_its_page_is_refused(made: Apk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apk, "PAGE_BYTES", 4096)
    with zipfile.ZipFile(made.unsigned) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    apk.write_apk(content | {"a": bytes(5000)}, tmp_path / "unaligned.apk")
    build_apk.sign(tmp_path / "unaligned.apk", tmp_path / "signed.apk", tmp_path)
    with pytest.raises(machine.BuildFailed, match="aligned to 16384"):
        check_apk.check_apk(tmp_path / "signed.apk", made.built.dexed, made.bundle, ABIS)


def test_unsigned_apk_is_refused(made: Apk) -> None:
    with pytest.raises(machine.BuildFailed):
        check_apk.check_apk(made.unsigned, made.built.dexed, made.bundle, ABIS)


@pytest.mark.parametrize(
    "member",
    [
        "java/nio/file/Files.exists(Ljava/nio/file/Path;)Z",
        "java/lang/String.join(Ljava/lang/CharSequence;)Ljava/lang/String;",
        "java/lang/Integer.toUnsignedLong(I)J",
        "android/os/PowerManager.getCurrentThermalStatus()I",
        "MISSING java/lang/String.isBlank()Z",
    ],
)
def test_use_of_what_android_24_lacks_is_refused(made: Apk, member: str) -> None:
    with pytest.raises(machine.BuildFailed, match="uses"):
        check_apk.check_references([(member, "org/capprune/demo/MainActivity")], made.built.dexed)


def test_call_that_only_the_dex_file_has_is_refused() -> None:
    dump = "invoke-virtual {v0}, Landroid/app/Activity;.finish:()V // method@0010"
    check_apk.check_dex(dump, [("android/app/Activity.finish()V", "org/capprune/demo/MainActivity")])
    with pytest.raises(machine.BuildFailed, match="finish"):
        check_apk.check_dex(dump, [("android/app/Activity.getIntent()I", "org/capprune/demo/MainActivity")])


def test_permission_is_refused() -> None:
    badging = "\n".join(check_apk.BADGING)
    check_apk.check_badging(badging, "package: org.capprune.demo", ())
    with pytest.raises(machine.BuildFailed, match="permissions"):
        check_apk.check_badging(badging, "uses-permission: name='android.permission.INTERNET'", ())


def test_library_of_small_pages_is_seen(jvm: DesktopJvm) -> None:
    assert min(check_apk.load_alignments((jvm.shim / SHIM).read_bytes())) == 4096


def test_listing_of_stubs_that_makes_no_sense_is_refused(tmp_path: Path) -> None:
    listing = tmp_path / "listing.txt"
    listing.write_text("package a\npublic void lost();\n")
    with pytest.raises(machine.BuildFailed, match="line 2"):
        stubs.write_stubs(listing, tmp_path)


def test_gradle_says_what_the_offline_build_says() -> None:
    text = GRADLE.read_text()
    for line in (
        f'applicationId = "{build_apk.PACKAGE}"',
        f"minSdk = {build_apk.MIN_SDK}",
        f"targetSdk = {build_apk.TARGET_SDK}",
        "abiFilters += listOf(" + ", ".join(f'"{abi}"' for abi in ABIS) + ")",
    ):
        assert line in text
    assert '"capz"' in text
    assert "INTERNET" not in (machine.ANDROID_DEMO / "app/src/main/AndroidManifest.xml").read_text()
