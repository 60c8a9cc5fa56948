from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from small_sweep import World, make_world

from capprune.metrics import scores


@pytest.fixture(autouse=True, scope="session")
def quick() -> Iterator[None]:
    """One thread, and the tokenizer and metrics that need no Java: starting it costs more than a run here."""
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scores, "java_command", lambda: None)
        yield


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(tmp_path_factory.mktemp("sweep"))
