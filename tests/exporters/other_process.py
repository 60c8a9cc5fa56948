"""`python other_process.py RUNTIME FOLDER SIGNATURES`: runs N.tflite on N.inputs.npz for the Nth signature.

In a process of its own, because tflite-runtime and tensorflow bear nobody beside them.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

from capprune_runtime.caption.interpreter import open_model


def main(runtime: str, folder: Path, signatures: list[str]) -> None:
    for number, signature in enumerate(signatures):
        model = open_model((folder / f"{number}.tflite").read_bytes(), signature, runtime=runtime)
        with np.load(folder / f"{number}.inputs.npz") as inputs:
            np.savez(folder / f"{number}.outputs.npz", **model.run(dict(inputs)))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), json.loads(sys.argv[3]))
