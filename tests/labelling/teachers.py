"""Small captioning models of transformers, saved as a user would have them in a folder; one of them has learned its colours."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
import transformers
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers

from capprune_exporters.quiet import quiet

COLOURS = {"red": (220, 30, 30), "green": (30, 200, 40), "blue": (30, 40, 230)}
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[DEC]", "[ENC]")
WORDS = [*SPECIAL, "a", "ball", "on", "the", "grass", "is", "here", *COLOURS]
SIZE, STEPS = 32, 60


def photo(colour: str, seed: int, size: tuple[int, int] = (48, 40)) -> Image.Image:
    """A noisy photo of one colour."""
    noise = np.random.default_rng(seed).integers(-20, 21, (*size[::-1], 3))
    return Image.fromarray(np.clip(np.array(COLOURS[colour]) + noise, 0, 255).astype(np.uint8))


def save_blip(folder: Path, *, learns: bool = True) -> None:
    """BLIP; trained until it names colours, with a licence in its README."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    sizes = {
        "hidden_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "projection_dim": 8,
    }
    text = {
        "vocab_size": len(WORDS),
        "encoder_hidden_size": 32,
        "bos_token_id": 5,
        "eos_token_id": 3,
        "sep_token_id": 3,
    }
    torch.manual_seed(3)
    with quiet():
        tokenizer = transformers.BertTokenizer(vocab=str(folder / "vocab.txt"))
        images = transformers.BlipImageProcessor(size={"height": SIZE, "width": SIZE})
        processor = transformers.BlipProcessor(images, tokenizer)
        config = transformers.BlipConfig(
            text_config={**sizes, **text, "pad_token_id": 0, "hidden_dropout_prob": 0.0},
            vision_config={**sizes, "image_size": SIZE, "patch_size": 16},
            projection_dim=8,
        )
        model = transformers.BlipForConditionalGeneration(config)
        if learns:
            _teach_colours(model, processor)
        model.eval().save_pretrained(folder)
        processor.save_pretrained(folder)
    (folder / "README.md").write_text("---\nlicense: bsd-3-clause\ntags: [captioning]\n---\n# A small BLIP\n")


def _teach_colours(model: torch.nn.Module, processor: transformers.BlipProcessor) -> None:
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-2)
    for step in range(STEPS):
        names = list(COLOURS) * 2
        shown = [photo(name, step * 10 + at) for at, name in enumerate(names)]
        pixels = processor(images=shown, return_tensors="pt")["pixel_values"]
        ids = torch.tensor([processor.tokenizer.encode(f"[DEC] a {name} ball on the grass")[1:] for name in names])
        optimiser.zero_grad()
        model(pixel_values=pixels, input_ids=ids, labels=ids).loss.backward()
        optimiser.step()


def save_vit_gpt2(folder: Path) -> None:
    """A vision encoder-decoder, whose image processor and tokenizer are apart."""
    folder.mkdir(parents=True)
    with quiet():
        vision = transformers.ViTConfig(
            hidden_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=16,
            image_size=SIZE,
            patch_size=16,
        )
        text = transformers.GPT2Config(
            vocab_size=len(WORDS), n_embd=16, n_layer=1, n_head=2, bos_token_id=5, eos_token_id=3, pad_token_id=0
        )
        config = transformers.VisionEncoderDecoderConfig.from_encoder_decoder_configs(vision, text)
        config.decoder_start_token_id, config.pad_token_id, config.eos_token_id = 5, 0, 3
        torch.manual_seed(4)
        transformers.VisionEncoderDecoderModel(config).eval().save_pretrained(folder)
        transformers.ViTImageProcessor(size={"height": SIZE, "width": SIZE}).save_pretrained(folder)
        word_tokenizer().save_pretrained(folder)


def save_llava(folder: Path) -> None:
    """A vision-language model that is asked in a chat."""
    folder.mkdir(parents=True)
    names = [*WORDS, "<image>", "USER:", "ASSISTANT:", "Describe", "this", "photo", "in", "one", "short", "sentence."]
    with quiet():
        vision = transformers.CLIPVisionConfig(
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=16,
            image_size=SIZE,
            patch_size=16,
        )
        text = transformers.LlamaConfig(
            vocab_size=len(names), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
        )
        config = transformers.LlavaConfig(vision_config=vision, text_config=text, image_token_index=len(WORDS))
        torch.manual_seed(6)
        model = transformers.LlavaForConditionalGeneration(config).eval()
        model.generation_config.update(eos_token_id=3, pad_token_id=0, bos_token_id=5)
        model.save_pretrained(folder)
        size = {"height": SIZE, "width": SIZE}
        images = transformers.CLIPImageProcessor(size=size, crop_size=size, do_center_crop=False)
        processor = transformers.LlavaProcessor(
            images,
            word_tokenizer(names, extra=["<image>"]),
            patch_size=16,
            vision_feature_select_strategy="default",
            num_additional_image_tokens=1,
            chat_template="{% for m in messages %}USER: {% for c in m['content'] %}"
            "{% if c['type'] == 'image' %}<image> {% else %}{{ c['text'] }} {% endif %}{% endfor %}{% endfor %}ASSISTANT:",
        )
        processor.save_pretrained(folder)


def word_tokenizer(names: list[str] = WORDS, extra: list[str] | None = None) -> transformers.PreTrainedTokenizerFast:
    """A tokenizer of whole words."""
    known = Tokenizer(models.WordLevel({name: number for number, name in enumerate(names)}, unk_token="[UNK]"))
    known.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=known,
        **{"bos_token": "[DEC]", "eos_token": "[SEP]", "pad_token": "[PAD]", "unk_token": "[UNK]"},
        additional_special_tokens=extra or [],
        padding_side="left",
    )


OTHERS: Mapping[str, Callable[[Path], None]] = {"vit-gpt2": save_vit_gpt2, "llava": save_llava}
