"""Verify, pack and unpack bundles, and the handle `Bundle` with all operations on a bundle."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from capprune.api.arguments import Place, given_path, needs, optional_path
from capprune.api.bench import ROUNDS, BenchResult, bench
from capprune.api.captioner import PhotoCaptioner
from capprune.api.inspection import BundleInspection, inspect_bundle
from capprune.api.validation import ValidationResult, validate
from capprune.devices.schemes import LOCAL
from capprune.training.progress import SILENT, Progress

if TYPE_CHECKING:
    from capprune_exporters.pack.capz import PackReport
    from capprune_runtime.caption.proof import GoldenProof


@dataclass(frozen=True)
class Bundle(os.PathLike[str]):
    """An exported model, a folder or a `.capz`. A `Bundle` is also a path, so every function that takes a bundle takes it.

    Attributes:
        place: The folder or the file.
    """

    place: Path

    def __post_init__(self) -> None:
        object.__setattr__(self, "place", given_path(self.place))

    def __fspath__(self) -> str:
        return str(self.place)

    def load(self, *, runtime: str = "auto", threads: int = 1) -> PhotoCaptioner:
        """Verify and load this bundle; see `capprune.load`."""
        return PhotoCaptioner(self, runtime=runtime, threads=threads)

    def verify(self, *, golden: bool = True) -> Verification:
        """Check every byte of this bundle; see `capprune.verify`."""
        return verify(self, golden=golden)

    def inspect(self) -> BundleInspection:
        """Describe this bundle file by file; see `capprune.inspect`."""
        return inspect_bundle(self)

    def pack(self, out: Place | None = None, *, progress: Progress = SILENT) -> PackedBundle:
        """Pack this bundle into one small file; see `capprune.pack`."""
        return pack(self, out=out, progress=progress)

    def validate(
        self,
        data: Place,
        *,
        split: str = "test",
        limit: int | None = None,
        reference: Place | None = None,
        max_drop: float | str | None = None,
        max_bytes: int | str | None = None,
        beam: int | None = None,
        runtime: str = "auto",
        also: Sequence[str] = (),
        device: str = LOCAL,
        python: str | None = None,
        record: bool = False,
        known: Place | Sequence[Place] = (),
        threads: int = 1,
        progress: Progress = SILENT,
    ) -> ValidationResult:
        """Measure quality, parity, size and speed of this bundle; see `capprune.validate`."""
        return validate(
            self,
            data=data,
            split=split,
            limit=limit,
            reference=reference,
            max_drop=max_drop,
            max_bytes=max_bytes,
            beam=beam,
            runtime=runtime,
            also=also,
            device=device,
            python=python,
            record=record,
            known=known,
            threads=threads,
            progress=progress,
        )

    def bench(
        self,
        *,
        baselines: bool = False,
        run: Place | None = None,
        rounds: int = ROUNDS,
        beam: int | None = None,
        device: str = LOCAL,
        python: str | None = None,
        threads: int = 1,
        progress: Progress = SILENT,
    ) -> BenchResult:
        """Time this bundle, interleaved with the same model in other forms; see `capprune.bench`."""
        return bench(
            self,
            baselines=baselines,
            run=run,
            rounds=rounds,
            beam=beam,
            device=device,
            python=python,
            threads=threads,
            progress=progress,
        )


@dataclass(frozen=True)
class PackedBundle(Bundle):
    """A bundle as `pack` returns it.

    Attributes:
        source: The bundle that was packed.
        report: Sizes before and after packing, by file.
    """

    source: Path
    report: PackReport

    def as_json(self) -> dict[str, Any]:
        """Return what `capprune pack --json` prints."""
        return {
            "bundle": str(self.source),
            "file": str(self.report.place),
            "bundle_bytes": self.report.bundle_bytes,
            "packed_bytes": self.report.packed_bytes,
            "files": [asdict(one) for one in self.report.files],
            "tensors": [asdict(one) for one in self.report.tensors],
        }


@dataclass(frozen=True)
class UnpackedBundle(Bundle):
    """A bundle as `unpack` returns it.

    Attributes:
        source: The packed bundle.
        files: Size of each file in bytes.
    """

    source: Path
    files: dict[str, int]

    def as_json(self) -> dict[str, Any]:
        """Return what `capprune unpack --json` prints."""
        return {"bundle": str(self.place), "file": str(self.source), "files": self.files}


@dataclass(frozen=True)
class Verification:
    """A bundle that passed the verifier.

    Attributes:
        place: The bundle.
        files: Number of its files.
        proof: For each golden photo the expected caption and the one found; empty if they were not captioned.
    """

    place: Path
    files: int
    proof: tuple[GoldenProof, ...]

    @property
    def different(self) -> tuple[GoldenProof, ...]:
        """Golden photos whose caption differs from the trained model's; int8 kernels of another CPU can cause this."""
        return tuple(one for one in self.proof if not one.same)

    def as_json(self) -> dict[str, Any]:
        """Return what `capprune verify --json` prints."""
        found = [
            {
                "photo": one.golden.name,
                "beam": one.golden.beam,
                "same": one.same,
                "expected": one.golden.caption,
                "found": one.said.text,
            }
            for one in self.proof
        ]
        return {"bundle": str(self.place), "files": self.files, "golden": found}


@needs("verify")
def verify(bundle: Place, *, golden: bool = True) -> Verification:
    """Check every byte of a bundle against its manifest, and its model files against the verifier's rules.

    Args:
        bundle: A folder or a `.capz`.
        golden: Also caption the golden photos and compare the tokens.

    Raises:
        UsageError: The bundle does not exist.
        BundleError: The bundle does not pass.
    """
    from capprune_runtime.bundle.verify import verify_bundle
    from capprune_runtime.caption.isolated import prove_isolated

    verified = verify_bundle(given_path(bundle))
    proof = tuple(prove_isolated(verified)) if golden else ()
    return Verification(given_path(bundle), len(verified.manifest.files), proof)


@needs("pack")
def pack(bundle: Place, *, out: Place | None = None, progress: Progress = SILENT) -> PackedBundle:
    """Pack a bundle into one small file, which expands to exactly the same bytes.

    Args:
        bundle: A folder or a `.capz`.
        out: The packed bundle; an existing file is replaced. `BUNDLE.capz` beside the bundle by default.
        progress: Receives progress messages.

    Raises:
        UsageError: `out` cannot be written to.
        BundleError: The bundle does not pass the verifier.
    """
    from capprune_exporters.pack import capz
    from capprune_runtime.atomic import check_file_place
    from capprune_runtime.bundle.capz import CAPZ_SUFFIX, MAGIC

    source = given_path(bundle)
    place = source.resolve()  # "." has no name to append a suffix to
    packed = optional_path(out) or place.with_name(place.name + CAPZ_SUFFIX)
    check_file_place(packed, ours=(MAGIC,))
    progress.say("packing")
    report = capz.pack(source, packed)
    return PackedBundle(report.place, source, report)


@needs("unpack")
def unpack(packed: Place, *, out: Place) -> UnpackedBundle:
    """Expand a packed bundle into a folder, which appears once the bundle is verified.

    Args:
        packed: A `.capz`.
        out: Folder for the bundle.

    Raises:
        UsageError: The file does not exist, or `out` is not empty.
        BundleError: The packed bundle is damaged or does not pass the verifier.
    """
    from capprune_exporters.pack import capz
    from capprune_runtime.atomic import check_folder_place

    check_folder_place(given_path(out), new=True)
    bundle = capz.unpack(given_path(packed), given_path(out))
    sizes = {name: len(data) for name, data in sorted(bundle.files.items())}
    return UnpackedBundle(given_path(out), given_path(packed), sizes)
