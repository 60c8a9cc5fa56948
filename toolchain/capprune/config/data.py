"""The keys under `data`."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from capprune.config.tree import Tree
from capprune_runtime.bundle.tokens import TokensSection, radix


class SourceConfig(Tree):
    """A further data set to train on, beside `data.folder`."""

    folder: Path = Field(description="folder with captions and photos, as for `data.folder`")
    weight: float = Field(
        default=1.0,
        gt=0,
        le=100,
        description="number of times that each training photo is used in an epoch, on average",
    )
    captions: Literal["all", "human", "generated"] = Field(
        default="all",
        description="photos that are used: all, those whose captions have no `confidence`, as people write them, or the others",
    )
    confident_share: float = Field(
        default=1.0,
        gt=0,
        le=1,
        description="share of the training photos that is used, those whose captions have the highest `confidence`",
    )
    by_confidence: bool = Field(
        default=False,
        description="multiply a photo's weight by the `confidence` of its captions, divided by the mean confidence",
    )


class DataConfig(Tree):
    """Location of photos and captions, and the choice of tokens."""

    folder: Path = Field(description="folder with captions and photos, in a layout that `capprune data check` supports")
    weight: float = Field(
        default=1.0,
        gt=0,
        le=100,
        description="number of times that each training photo of `folder` is used in an epoch, on average",
    )
    sources: tuple[SourceConfig, ...] = Field(
        default=(), description="further data sets to train and validate on: a list of folders with their weights"
    )
    shards: str | None = Field(
        default=None,
        description="folder or fsspec URL of shards (`capprune data shard`) to read the train and val photos from, "
        "instead of `folder`",
    )
    shuffle_photos: int = Field(
        default=4096, ge=1, description="with shards: number of photos that are shuffled together, in whole shards"
    )
    broken: Literal["stop", "skip"] = Field(
        default="stop",
        description="how to handle photos that are missing or cannot be read: stop the training, or skip and count them",
    )
    flip: bool = Field(
        default=False,
        description="train on a mirror image of every photo too, each of the two half as often; photos with `left` or "
        "`right` in a caption are not mirrored",
    )
    crops: int = Field(
        default=0,
        ge=0,
        le=16,
        description="train on this many parts of every photo too, of 70 to 100 % of its width and height; the photo and each "
        "part are used equally often, and with `flip` their mirror images too",
    )
    minimum_count: int = Field(
        default=5, ge=1, description="words that occur less often in the training captions become `<unk>`"
    )
    vocabulary: Path | None = Field(
        default=None,
        description="folder of a run whose vocabulary is used instead of one that is made from the training captions; "
        "this run can then start from that run, learn from it, and join an ensemble with it",
    )
    maximum_tokens: int = Field(
        default=20,
        ge=2,
        le=500,
        description="longest caption in tokens (radix: in words); longer training captions are cut",
    )
    tokens: Literal["words", "characters", "subwords", "radix"] = Field(
        default="words", description="unit that the decoder generates at each step"
    )
    radix_base: int = Field(
        default=768, ge=2, le=65_536, description="number of digits of radix tokens; every word is two digits"
    )
    subword_pieces: int = Field(default=1000, ge=20, le=100_000, description="size of the subword vocabulary")
    subword_model: Literal["bpe", "unigram"] = Field(
        default="unigram", description="sentencepiece's algorithm for subwords"
    )
    licence: str = Field(default="unknown", description="terms of the data, written into every bundle made from it")
    limit: int | None = Field(default=None, ge=1, description="use only the first photos of each split")

    @model_validator(mode="before")
    @classmethod
    def _shards_are_a_folder(cls, tree: Any) -> Any:
        """Use the shards as the folder if only shards are given."""
        if isinstance(tree, dict) and tree.get("folder") is None and isinstance(tree.get("shards"), str):
            return {**tree, "folder": tree["shards"].partition("://")[2] or tree["shards"]}
        return tree

    @model_validator(mode="after")
    def _shards_stand_alone(self) -> Self:
        if self.shards is not None and (self.sources or self.weight != 1):
            raise ValueError("data.shards cannot be combined with data.sources or data.weight")
        if self.shards is not None and (self.flip or self.crops):
            raise ValueError("data.shards cannot be combined with data.flip or data.crops")
        return self

    @property
    def label(self) -> str:
        """Names of the data folder and of all sources, without their paths."""
        names = [self.folder.name or "unknown"]
        for one in self.sources:
            kind = "" if one.captions == "all" else f" ({one.captions} captions)"
            names.append(f"{one.folder.name or 'unknown'}{kind}")
        return " + ".join(names)

    @property
    def coding(self) -> TokensSection:
        """The meaning of token ids."""
        return radix(self.radix_base) if self.tokens == "radix" else TokensSection(self.tokens)

    @property
    def steps(self) -> int:
        """Length of the longest caption in tokens of the decoder."""
        return self.maximum_tokens * self.coding.per_word

    def without_places(self) -> DataConfig:
        """Return the section with only the last part of a path or a URL, so that no local path is published."""
        shards = None if self.shards is None else PurePosixPath(self.shards).name
        sources = tuple(one.model_copy(update={"folder": Path(one.folder.name)}) for one in self.sources)
        vocabulary = self.vocabulary and Path(self.vocabulary.name)
        names = {"folder": Path(self.folder.name), "vocabulary": vocabulary}
        return self.model_copy(update={**names, "shards": shards, "sources": sources})
