"""Fixtures that every test may use, and what a missing part of the machine means."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

# Before torch loads OpenMP, and for every process that a test starts: with more threads than free cores they only wait.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

sys.path.append(str(Path(__file__).parents[1] / "android_demo" / "offline"))  # the build of the Android app
sys.path.append(str(Path(__file__).parent / "worlds"))  # tiny models and data that several folders share

import made_once

# Folders whose files take longest. They come first, so that no process ends long after the others with one of them.
LONG_FOLDERS = ("walk", "training", "cli", "exporting", "models", "metrics", "android")

REQUIRED = frozenset(filter(None, os.environ.get("CAPPRUNE_REQUIRE", "").split(",")))


def pytest_configure(config: pytest.Config) -> None:
    """Give the processes of this test run a folder for what they share."""
    if made_once.FOLDER_VARIABLE not in os.environ:
        folder = tempfile.mkdtemp(prefix="capprune-tests-")
        os.environ[made_once.FOLDER_VARIABLE] = folder
        config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))
        config.add_cleanup(lambda: os.environ.pop(made_once.FOLDER_VARIABLE, None))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="also run the tests that take minutes")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    ranks = {name: rank for rank, name in enumerate(LONG_FOLDERS)}
    items.sort(key=lambda item: ranks.get(item.path.parent.name, len(ranks)))
    for item in items:
        quick = item.get_closest_marker("slow_but_for")
        if quick is not None and not any(case in item.name.partition("[")[2] for case in quick.args):
            item.add_marker("slow")
    if config.getoption("--slow"):
        return
    for item in items:
        if "slow" in item.keywords:
            item.add_marker(pytest.mark.skip(reason="slow; run with --slow"))


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Print a failing test's name and error at once: a run of the slow tests takes long, or may be stopped."""
    if report.failed and "PYTEST_XDIST_WORKER" not in os.environ:
        lines = str(report.longrepr).strip().splitlines()
        print(f"\n{report.nodeid} ({report.when})", *lines[-12:], sep="\n    ", file=sys.stderr, flush=True)


def absent(part: str, reason: str) -> None:
    """Skip with the reason, or fail where CAPPRUNE_REQUIRE names the part."""
    if part in REQUIRED:
        pytest.fail(f"CAPPRUNE_REQUIRE names {part}, but {reason}")
    pytest.skip(reason)


@pytest.fixture(scope="session")
def required_parts() -> frozenset[str]:
    """What CAPPRUNE_REQUIRE names."""
    return REQUIRED


@pytest.fixture(scope="session")
def when_absent() -> Callable[[str, str], None]:
    """`absent`, for the fixtures of other folders."""
    return absent


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The folder with the real data: flickr8k/, coco_eval/, tiny3/."""
    value = os.environ.get("CAPPRUNE_DATA")
    if not value:
        absent("data", "CAPPRUNE_DATA is not set")
    folder = Path(str(value))
    if not (folder / "flickr8k" / "dataset_flickr8k.json").is_file():
        absent("data", f"there is no flickr8k/dataset_flickr8k.json under CAPPRUNE_DATA ({folder})")
    return folder


@pytest.fixture(scope="session")
def jdk() -> None:
    """A machine that compiles the Android app's core and runs its JUnit tests."""
    import machine

    if missing := machine.missing_packages(junit_only=True):
        absent("android", f"these Debian packages are not installed: {', '.join(missing)}")


@pytest.fixture(scope="session")
def android_parts() -> Path:
    """The fetched parts of the Android build, on a machine that has all the rest of it."""
    import machine

    if missing := machine.missing_packages():
        absent("android", f"these Debian packages are not installed: {', '.join(missing)}")
    parts = machine.parts_folder()
    if parts is None:
        absent("android", f"{machine.PARTS_VARIABLE} names no folder that fetch_parts.py of android_demo has filled")
    return Path(str(parts))


@pytest.fixture(scope="session")
def chromium() -> str:
    """The browser that opens what capprune writes for people."""
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    if found is None:
        absent("browser", "there is no chromium on PATH")
    return str(found)
