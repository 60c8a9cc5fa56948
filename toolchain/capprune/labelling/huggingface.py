"""Teachers from `transformers`: image captioning and vision-language models such as BLIP, GIT, ViT-GPT2 or LLaVA.

Florence-2 and SmolVLM are supported too. Weights are read only from safetensors, and no code of a model's repository is
run.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import torch
import transformers
from PIL import Image

from capprune.labelling.teacher import Generation, Label
from capprune_exporters.quiet import quiet
from capprune_runtime.errors import UsageError

LONGEST_SIDE: Final = 1024  # pixels; larger photos are resized before a processor reads them
CHAT_PROMPT: Final = "Describe this photo in one short sentence."
TASK_PROMPTS: Final = {
    "florence2": "<CAPTION>"
}  # by model type; the answers of such models have a mark-up that their processor parses
_LICENCE: Final = re.compile(r"^license:\s*['\"]?([\w.+-]+)", re.MULTILINE)


class HuggingFaceTeacher:
    """A model and its processor.

    Args:
        source: A folder written by `save_pretrained`, or an id on the Hub.
        generation: Options for generating captions.

    Raises:
        UsageError: There is no such model, its files are incomplete, or it does not generate text from photos.
    """

    def __init__(self, source: str, generation: Generation) -> None:
        self._source, self._generation = source, generation
        with quiet():
            config = _opened(source, transformers.AutoConfig.from_pretrained)
            self._model = _opened(
                source, transformers.AutoModelForImageTextToText.from_pretrained, use_safetensors=True
            )
            self._images, self._texts, self._processor = _processors(source)
        self._model.eval()
        self._kind = str(config.model_type)
        self._prompt = self._prompt_of(generation.prompt)

    @property
    def name(self) -> str:
        """The id on the Hub, or the folder's name."""
        path = Path(self._source)
        return path.resolve().name if path.is_dir() else self._source

    @property
    def licence(self) -> str | None:
        """The `license` of the model's README.md in its folder."""
        card = Path(self._source) / "README.md"
        if not card.is_file():
            return None
        found = _LICENCE.search(card.read_text(encoding="utf-8", errors="replace"))
        return found.group(1) if found else None

    @property
    def longest_side(self) -> int:
        """More pixels than the processors of such models use."""
        return LONGEST_SIDE

    @property
    def identity(self) -> str:
        """A hash of the config, of the sums of all weights, and of the prompt."""
        digest = hashlib.sha256(json.dumps(self._model.config.to_dict(), sort_keys=True, default=str).encode())
        for name, value in sorted(self._model.state_dict().items()):
            digest.update(f"{name} {tuple(value.shape)} {float(value.double().sum())!r}\n".encode())
        digest.update(repr((self._prompt, self._generation)).encode())
        return digest.hexdigest()[:16]

    def captions(self, photos: Sequence[Image.Image], /) -> list[list[Label]]:
        """Generate captions; see `Teacher`."""
        wanted, beam = self._generation.captions, max(self._generation.beam, self._generation.captions)
        inputs = self._inputs(photos)
        with torch.inference_mode():
            found = self._model.generate(
                **inputs,
                num_beams=beam,
                num_return_sequences=wanted,
                max_new_tokens=self._generation.max_tokens,
                do_sample=False,
                return_dict_in_generate=True,
                output_scores=True,
            )
            transitions = self._model.compute_transition_scores(
                found.sequences, found.scores, getattr(found, "beam_indices", None), normalize_logits=beam == 1
            )
        new = found.sequences[:, -transitions.shape[1] :]
        texts = [self._caption(text) for text in self._texts.batch_decode(new, skip_special_tokens=self._plain)]
        means = _means(transitions)
        labels = [Label(text, mean) for text, mean in zip(texts, means, strict=True)]
        rows = [labels[start : start + wanted] for start in range(0, len(labels), wanted)]
        return [sorted(row, key=lambda label: -label.log_probability) for row in rows]

    @property
    def _plain(self) -> bool:
        return self._kind not in TASK_PROMPTS

    def _prompt_of(self, asked: str | None) -> str | None:
        chats = getattr(self._processor, "chat_template", None) or getattr(self._texts, "chat_template", None)
        if not chats:
            return asked or TASK_PROMPTS.get(self._kind)
        content = [{"type": "image"}, {"type": "text", "text": asked or CHAT_PROMPT}]
        messages = [{"role": "user", "content": content}]
        return str(self._processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False))

    def _inputs(self, photos: Sequence[Image.Image]) -> Mapping[str, Any]:
        if self._processor is None or self._prompt is None:
            inputs = dict(self._images(images=list(photos), return_tensors="pt"))
            if self._prompt is not None:
                inputs |= dict(self._texts([self._prompt] * len(photos), return_tensors="pt"))
            return inputs
        batch = [[photo] for photo in photos] if self._is_chat else list(photos)
        return dict(self._processor(images=batch, text=[self._prompt] * len(photos), return_tensors="pt", padding=True))

    @property
    def _is_chat(self) -> bool:
        return bool(getattr(self._processor, "chat_template", None))

    def _caption(self, text: str) -> str:
        if not self._plain:
            task = TASK_PROMPTS[self._kind]
            answer = self._processor.post_process_generation(text, task=task, image_size=(1, 1))
            text = str(answer.get(task, ""))
        return " ".join(text.split())


def open_teacher(source: str, generation: Generation) -> HuggingFaceTeacher:
    """Open a model of `transformers`; see `HuggingFaceTeacher`."""
    return HuggingFaceTeacher(source, generation)


def _processors(source: str) -> tuple[Any, Any, Any]:
    """Return the processor of images, that of text, and the combined one; the last is None if a model has none."""
    whole = _opened(source, transformers.AutoProcessor.from_pretrained)
    if hasattr(whole, "image_processor") and hasattr(whole, "tokenizer"):
        return whole.image_processor, whole.tokenizer, whole
    return (
        _opened(source, transformers.AutoImageProcessor.from_pretrained),
        _opened(source, transformers.AutoTokenizer.from_pretrained),
        None,
    )


def _opened(source: str, open_it: Any, **options: Any) -> Any:
    try:
        return open_it(source, trust_remote_code=False, **options)
    except (
        OSError,
        ValueError,
        KeyError,
        ImportError,
    ) as error:  # raised by transformers for a model that does not exist
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UsageError(
            "this teacher cannot be opened",
            where=f"hf:{source}",
            expected="a model with an image processor, a tokenizer and weights in safetensors that generates text from photos",
            found=first,
            hint=f"huggingface-cli download {source}, on a machine with access" if "/" in source else None,
        ) from error


def _means(transitions: torch.Tensor) -> list[float]:
    """Return the mean log-probability of each caption's own tokens; padding counts as 0 and is left out."""
    own = (transitions != 0) & torch.isfinite(transitions)
    sums = torch.where(own, transitions, torch.zeros_like(transitions)).sum(1)
    return [float(value) for value in sums / own.sum(1).clamp_min(1)]
