"""Write every attack as files, with an index, for another reader to be held against.

python tests/hostile/write_attacks.py --out FOLDER
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

from all_attacks import ATTACKS
from attacks import BUNDLE, PACKED, PACKED_NAME, write_files
from world import World, read_world, write_world


def write_attacks(world: World, out: Path) -> None:
    """Write sound bundles and attacks below a folder that is there, and index.json, which lists them."""
    index: list[dict[str, object]] = []
    sound = {f"sound/{cell}": world.bundles[cell] for cell in world.bundles} | {"sound/onnx": world.onnx}
    for path, files in sound.items():
        write_files(files, out / path)
        index.append({"path": path, "kind": BUNDLE, "accept": True})
    write_files({PACKED_NAME: world.packed}, out / "sound/capz")
    index.append({"path": f"sound/capz/{PACKED_NAME}", "kind": PACKED, "accept": True})
    for number, attack in enumerate(ATTACKS):
        place = f"{number:03}"
        write_files(attack.make(world), out / place)
        index.append({
            "path": f"{place}/{PACKED_NAME}" if attack.kind == PACKED else place,
            "kind": attack.kind,
            "accept": False,
            "row": attack.row,
            "name": attack.name,
            "error": attack.error.__name__,
            "exit_code": attack.error.exit_code,
        })  # fmt: skip
    (out / "index.json").write_text(json.dumps(index, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="a folder that is not there yet")
    out: Path = parser.parse_args().out
    out.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as folder:
        write_world(Path(folder), every_format=True)
        write_attacks(read_world(Path(folder)), out)


if __name__ == "__main__":
    main()
