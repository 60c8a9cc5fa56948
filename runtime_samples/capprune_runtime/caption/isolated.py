"""Caption the golden photos of a bundle in a child process with limits.

The parent has verified the bundle and passes its files on, so that nothing is read twice. It sends a line of JSON with
their names and sizes, then their bytes.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from pathlib import Path
from typing import Any

from capprune_runtime.bundle.manifest import MANIFEST, VOCABULARY, parse_manifest
from capprune_runtime.bundle.verify import Bundle
from capprune_runtime.bundle.vocabulary import decode_vocabulary
from capprune_runtime.caption.captioner import Caption
from capprune_runtime.caption.proof import GoldenProof, prove_golden, read_golden
from capprune_runtime.errors import BundleError, CapPruneError
from capprune_runtime.isolation import ERROR_CODE, limit_this_process, memory_for, run_isolated
from capprune_runtime.strict_json import parse

BASE_SECONDS, SECONDS_PER_MB = 120.0, 10.0  # many times what a bundle at the cost limits needs on an idle machine
_CODE = "from capprune_runtime.caption.isolated import answer; answer()"


def prove_isolated(bundle: Bundle, *, runtime: str = "auto", threads: int = 1) -> tuple[GoldenProof, ...]:
    """Caption every golden photo of a verified bundle in a child process.

    Raises:
        MissingExtra: No interpreter is installed.
        BundleError: The interpreter crashes, takes too long, or rejects a model.
    """
    golden = read_golden(bundle)
    if not golden:
        return ()
    sizes = [[name, len(content)] for name, content in bundle.files.items()]
    head = json.dumps({"place": str(bundle.place), "runtime": runtime, "threads": threads, "files": sizes}) + "\n"
    size_bytes = sum(map(len, bundle.files.values()))
    seconds = BASE_SECONDS + SECONDS_PER_MB * size_bytes / 1e6
    content = b"".join((head.encode(), *bundle.files.values()))
    said = parse(run_isolated(_CODE, [str(memory_for(size_bytes))], content, bundle.place, seconds))
    if not isinstance(said, list) or len(said) != len(golden):
        raise BundleError("the golden photos gave no captions", where=bundle.place)
    return tuple(GoldenProof(one, _caption(tree)) for one, tree in zip(golden, said, strict=True))


def answer() -> None:
    """Run the child's part: read the request from stdin, and write the result to stdout."""
    limit_this_process(int(sys.argv[1]))
    lines = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # interpreters print to stdout
    head = json.loads(sys.stdin.buffer.readline())
    files = {name: sys.stdin.buffer.read(size) for name, size in head["files"]}
    code = 0
    try:
        proof = prove_golden(_bundle(Path(head["place"]), files), runtime=head["runtime"], threads=head["threads"])
        json.dump([_tree(one.said) for one in proof], lines)
    except CapPruneError as error:
        json.dump(error.as_json(), lines)
        code = ERROR_CODE
    lines.flush()
    os._exit(code)  # interpreters may crash during cleanup


def _bundle(place: Path, files: dict[str, bytes]) -> Bundle:
    manifest = parse_manifest(files[MANIFEST], place / MANIFEST)
    return Bundle(place, manifest, decode_vocabulary(files[VOCABULARY], place / VOCABULARY, manifest.tokens), files)


def _tree(caption: Caption) -> dict[str, Any]:
    return {**dataclasses.asdict(dataclasses.replace(caption, attention=None)), "attention": None}


def _caption(tree: Any) -> Caption:
    tuples = {key: tuple(tree[key]) for key in ("tokens", "step_us", "shown")}
    return Caption(**{**tree, **tuples})
