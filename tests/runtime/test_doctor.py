"""Every machine is told the command that makes it able to run bundles, or that nothing does."""

from __future__ import annotations

import pytest

from capprune_runtime.measure.doctor import equipment, install_command


@pytest.mark.parametrize(
    ("machine", "python", "kind", "venv", "command"),
    [
        ("aarch64", (3, 13), "tflite", True, "py -m pip install numpy Pillow ai-edge-litert"),
        ("x86_64", (3, 11), "onnx", True, "py -m pip install numpy Pillow 'onnxruntime<1.29'"),
        ("armv7l", (3, 11), "tflite", True, "py -m pip install 'numpy<2' Pillow tflite-runtime"),
        (
            "aarch64",
            (3, 11),
            "tflite",
            False,
            "python3 -m venv ~/capprune && ~/capprune/bin/pip install numpy Pillow ai-edge-litert",
        ),
        ("armv7l", (3, 13), "tflite", True, None),
        ("armv7l", (3, 11), "onnx", True, None),
        ("riscv64", (3, 13), "tflite", True, None),
        ("aarch64", (3, 10), "tflite", True, None),
        ("armv7l", (3, 12), "tflite", True, None),
    ],
)
def test_install_command(machine: str, python: tuple[int, int], kind: str, venv: bool, command: str | None) -> None:
    assert install_command(machine, python, kind, "py", venv) == command


def test_this_machine_lacks_nothing() -> None:
    found = equipment()
    assert found.missing == () and found.install is None and found.numpy and found.pillow
    assert found.free_bytes > 0 and "unknown" not in found.runtimes.values()
