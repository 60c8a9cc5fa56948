"""Build, sign and check the app without Google's Maven: a real APK with the real TFLite library for Android.

    python android_demo/offline/build_apk.py --bundle BUNDLE.capz --out app.apk [--abi arm64-v8a] [--abi x86_64]

app-unsigned.apk beside it is the same bytes for the same sources, bundle and tools. The signature is of a key that is thrown
away: for a phone of your own, not for a shop.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from apk import write_apk
from check_apk import check_apk
from compile_java import CORE_RESOURCES
from compile_native import SHIM, compile_android
from dex import Dexed, make_dex
from machine import (
    ABIS,
    ANDROID_DEMO,
    FRAMEWORK,
    PARTS_VARIABLE,
    RUNTIME,
    BuildFailed,
    missing_packages,
    parts_folder,
    run,
)

PACKAGE = "org.capprune.demo"
MIN_SDK, TARGET_SDK = 24, 36
BUNDLE = "assets/bundle.capz"
_RESOURCES = ANDROID_DEMO / "app/src/main/res"
_MANIFEST = ANDROID_DEMO / "app/src/main/AndroidManifest.xml"
_PASSWORD = "thrown-away"  # of a key that lives as long as this process


@dataclass(frozen=True)
class Built:
    """An unsigned APK and what its code was made of."""

    unsigned: Path
    dexed: Dexed


def build_unsigned(bundle: bytes, abis: tuple[str, ...], parts: Path, work: Path) -> Built:
    """Build the APK.

    Args:
        bundle: A packed bundle that has been verified.
        abis: Kinds of devices.
        parts: The folder of the fetched parts.
        work: An empty folder.

    Raises:
        BuildFailed: A tool failed.
    """
    resources, generated = _package_resources(work)
    dexed = make_dex(generated, work / "dex")
    content = {"classes.dex": dexed.dex.read_bytes(), BUNDLE: bundle}
    content |= {name: source.read_bytes() for name, source in CORE_RESOURCES.items()}
    with zipfile.ZipFile(resources) as archive:
        content |= {name: archive.read(name) for name in archive.namelist()}
    for abi in abis:
        content[f"lib/{abi}/{SHIM}"] = compile_android(abi, parts, work / "native").read_bytes()
        content[f"lib/{abi}/{RUNTIME}"] = (parts / abi / RUNTIME).read_bytes()
    unsigned = work / "app-unsigned.apk"
    write_apk(content, unsigned)
    return Built(unsigned, dexed)


def sign(unsigned: Path, out: Path, work: Path) -> None:
    """Sign an APK with a new key, which is then gone."""
    store = work / "key.p12"
    store.unlink(missing_ok=True)
    secret = ["-storepass", _PASSWORD, "-keypass", _PASSWORD]
    name = ["-alias", "key", "-dname", "CN=thrown away", "-validity", "10000"]
    run(
        [
            "keytool",
            "-genkeypair",
            "-keystore",
            store,
            "-storetype",
            "PKCS12",
            "-keyalg",
            "RSA",
            "-keysize",
            "2048",
            *secret,
            *name,
        ]
    )
    keys = ["--ks", store, "--ks-pass", f"pass:{_PASSWORD}"]
    run(
        [
            "apksigner",
            "sign",
            *keys,
            "--min-sdk-version",
            MIN_SDK,
            "--v4-signing-enabled",
            "false",
            "--out",
            out,
            unsigned,
        ]
    )
    store.unlink()


def app_version() -> str:
    """The version in the app's Gradle file."""
    found = re.search(r'versionName = "([^"]+)"', (ANDROID_DEMO / "app/build.gradle.kts").read_text())
    assert found is not None, "app/build.gradle.kts names the version"
    return found[1]


def _package_resources(work: Path) -> tuple[Path, Path]:
    """aapt's package of manifest and resources, and the folder of R.java."""
    generated, manifest, packaged = work / "generated", work / "AndroidManifest.xml", work / "resources.apk"
    generated.mkdir(parents=True)
    # What Gradle takes from its own files, aapt takes from the manifest.
    manifest.write_text(_MANIFEST.read_text().replace("<manifest ", f'<manifest package="{PACKAGE}" ', 1))
    sdk = ["--min-sdk-version", MIN_SDK, "--target-sdk-version", TARGET_SDK]
    version = ["--version-code", 1, "--version-name", app_version()]
    inputs = ["-M", manifest, "-S", _RESOURCES, "-I", FRAMEWORK]
    run(["aapt", "package", "-f", "-m", "-J", generated, "-F", packaged, *inputs, *sdk, *version])
    return packaged, generated


def _verified(bundle: Path) -> bytes:
    """The packed bundle's bytes, once Python's runtime has passed it."""
    from capprune_runtime import verify_bundle

    if not bundle.is_file():
        raise BuildFailed(f"{bundle} is no packed bundle; make one: capprune pack BUNDLE")
    verify_bundle(bundle)
    return bundle.read_bytes()


def main() -> int:
    """Build, sign and check."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, required=True, help="a packed bundle, as `capprune pack` writes it")
    parser.add_argument("--out", type=Path, required=True, help="the signed APK")
    parser.add_argument("--abi", action="append", choices=ABIS, help="a kind of device; without it, arm64-v8a")
    options = parser.parse_args()
    abis = tuple(options.abi or ABIS[:1])
    try:
        parts = parts_folder()
        if (missing := missing_packages()) or parts is None:
            raise BuildFailed(
                f"Debian packages that are missing: {', '.join(missing) or 'none'}\n"
                f"{PARTS_VARIABLE} must name the folder that fetch_parts.py has filled"
            )
        bundle = _verified(options.bundle)
        with tempfile.TemporaryDirectory() as folder:
            work = Path(folder)
            built = build_unsigned(bundle, abis, parts, work)
            sign(built.unsigned, options.out, work)
            facts = check_apk(options.out, built.dexed, bundle, abis)
            options.out.with_name(f"{options.out.stem}-unsigned.apk").write_bytes(built.unsigned.read_bytes())
    except BuildFailed as error:
        print(error, file=sys.stderr)
        return 1
    print("\n".join(f"{name}: {value}" for name, value in facts.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
