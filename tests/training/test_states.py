"""The states of an unfinished run: two are kept, a damaged one is named, and every signal that ends a run saves one."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import tiny_training as tiny

from capprune.config.training import Interval
from capprune.training.outcome import Progress
from capprune.training.resume import is_unfinished
from capprune.training.run import BEST, LAST, NEXT_STATE, PREVIOUS_STATE, STATE, read_checkpoint
from capprune_runtime.errors import BundleError, ConfigError

RUN = (*tiny.SPARSE, "training.save_every=3 steps")


class Stop(Exception):
    pass


def stop_at(step: int) -> Callable[[Progress], None]:
    def report(progress: Progress) -> None:
        if progress.step == step and progress.cider is None:
            raise Stop

    return report


def step_of(path: Path) -> int:
    return int(read_checkpoint(path).facts["step"])


def stopped(folder: Path, step: int = 11) -> Path:
    """A run that crashed in step 11, with the states of steps 10 and 8."""
    with pytest.raises(Stop):
        tiny.trainer(folder, *RUN, report=stop_at(step)).run()
    return folder


def assert_same_weights(first: Path, second: Path) -> None:
    for name in (BEST, LAST):
        one, other = read_checkpoint(first / name), read_checkpoint(second / name)
        assert one.facts == other.facts
        assert {key: value.numpy().tobytes() for key, value in one.tensors.items()} == {
            key: value.numpy().tobytes() for key, value in other.tensors.items()
        }


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    tiny.trainer(folder, *RUN).run()
    return folder


def test_last_two_states_are_kept_and_gone_at_the_end(tmp_path: Path, undisturbed: Path) -> None:
    folder = stopped(tmp_path / "run")
    assert (step_of(folder / STATE), step_of(folder / PREVIOUS_STATE)) == (
        10,
        8,
    )  # after the epoch of 5 steps, and 3 into it
    assert not (folder / NEXT_STATE).exists()
    tiny.trainer(folder, *RUN).run()
    assert not is_unfinished(folder)
    assert_same_weights(folder, undisturbed)


@pytest.mark.parametrize("damage", ["truncated", "one bit", "empty"])
def test_damaged_state_is_named_and_the_one_before_it_is_used(damage: str, tmp_path: Path, undisturbed: Path) -> None:
    folder = stopped(tmp_path / "run")
    older = step_of(folder / PREVIOUS_STATE)
    content = bytearray((folder / STATE).read_bytes())
    if damage == "one bit":
        content[-5] ^= 1
    (folder / STATE).write_bytes({"truncated": content[:-100], "one bit": content, "empty": b""}[damage])
    said: list[str] = []
    tiny.trainer(folder, *RUN, note=said.append).run()
    assert len(said) == 1
    assert str(folder / STATE) in said[0]
    assert f"resumes from previous.safetensors, step {older}" in said[0]
    assert_same_weights(folder, undisturbed)


def test_two_damaged_states_end_with_the_newest_and_a_way_out(tmp_path: Path) -> None:
    folder = stopped(tmp_path / "run")
    for name in (STATE, PREVIOUS_STATE):
        (folder / name).write_bytes((folder / name).read_bytes()[:-9])
    with pytest.raises(BundleError, match=r"(?s)state/state\.safetensors.*try +remove .*run/state"):
        tiny.trainer(folder, *RUN).run()


def test_state_that_a_kill_left_without_its_name_is_the_newest(tmp_path: Path, undisturbed: Path) -> None:
    folder = stopped(tmp_path / "run")
    (folder / STATE).rename(folder / NEXT_STATE)
    steps: list[int] = []
    tiny.trainer(folder, *RUN, report=lambda progress: steps.append(progress.step)).run()
    assert steps[0] == 11
    assert_same_weights(folder, undisturbed)


@pytest.fixture
def in_a_terminal() -> Iterator[None]:
    """SIGHUP as in a terminal, also where the tests run under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.usefixtures("in_a_terminal")
@pytest.mark.parametrize("name", ["SIGHUP", "SIGUSR1"])
@pytest.mark.slow_but_for("SIGHUP")
def test_lost_terminal_and_preemption_save_and_end_with_143(name: str, tmp_path: Path, undisturbed: Path) -> None:
    folder = tmp_path / "run"
    arguments = [str(folder), ",".join(RUN), name, "7"]
    done = subprocess.run([sys.executable, tiny.__file__, *arguments], capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stderr) == (143, "")
    assert step_of(folder / STATE) == 7
    tiny.trainer(folder, *RUN).run()
    assert_same_weights(folder, undisturbed)


@pytest.mark.usefixtures("in_a_terminal")
def test_hangup_is_ignored_under_nohup() -> None:
    from capprune_runtime.stopping import stopping_signals

    assert signal.SIGHUP in stopping_signals()
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert signal.SIGHUP not in stopping_signals()
    finally:
        signal.signal(signal.SIGHUP, before)


def test_when_states_are_saved_may_change_when_a_run_goes_on(tmp_path: Path, undisturbed: Path) -> None:
    folder = stopped(tmp_path / "run")
    tiny.trainer(folder, *tiny.SPARSE, "training.save_every=epoch").run()
    assert_same_weights(folder, undisturbed)


def test_interval_of_states_is_read_from_words() -> None:
    assert tiny.config().training.save_interval == Interval(10, "minutes")
    assert tiny.config("training.save_every=0.5 minutes").training.save_interval == Interval(0.5, "minutes")
    assert tiny.config("training.save_every=1 step").training.save_interval == Interval(1, "steps")
    assert tiny.config("training.save_every=epoch").training.save_interval is None
    for wrong in ("10", "0 steps", "1.5 steps", "2 hours", "-1 minutes"):
        with pytest.raises(ConfigError, match="500 steps"):
            tiny.config(f"training.save_every={wrong}")
