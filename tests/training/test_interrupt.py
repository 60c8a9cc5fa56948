from __future__ import annotations

import os
import signal

import pytest

from capprune.training.interrupt import postponed_signals
from capprune_runtime.stopping import TERMINATED


def send(number: signal.Signals) -> None:
    os.kill(os.getpid(), number)


def test_signal_waits_until_the_block_asks() -> None:
    with postponed_signals() as request:
        request.obey()
        assert request.signal is None
        send(signal.SIGINT)
        assert request.signal == signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            request.obey()


def test_termination_ends_with_its_exit_code() -> None:
    with postponed_signals() as request:
        send(signal.SIGTERM)
        with pytest.raises(SystemExit) as stop:
            request.obey()
    assert stop.value.code == TERMINATED == 143


def test_second_ctrl_c_does_not_wait() -> None:
    with pytest.raises(KeyboardInterrupt), postponed_signals():
        send(signal.SIGINT)
        send(signal.SIGINT)
        pytest.fail("the second signal was held back")


def test_handlers_are_given_back_even_after_an_error() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(ValueError, match="mine"), postponed_signals():
        assert signal.getsignal(signal.SIGTERM) != before[1]
        raise ValueError("mine")
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
