"""Minimal use of a bundle: python smallest.py BUNDLE PHOTO

Generates the most likely word at each step. The verifier is left out, and an interpreter can crash on a bad file, so use this
only for your own bundles. `capprune_runtime` also has beam search, other interpreters, a bit-identical resize, packed bundles
and error messages.
"""

import json
import sys
from pathlib import Path

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from PIL import Image, ImageOps

folder, photo_path = Path(sys.argv[1]), sys.argv[2]
manifest = json.loads((folder / "manifest.json").read_text())
words = (folder / "vocabulary.txt").read_text(encoding="utf-8").splitlines()
decoding, preprocessing = manifest["decoding"], manifest["preprocessing"]
interface, size = manifest["decoder"]["interface"], preprocessing["size"]
state_specs = interface["state"]  # h and c of an LSTM
if interface["position"] or manifest["tokens"]["kind"] != "words" or "no_repeat_ngram" in decoding:
    sys.exit("this sample is for recurrent decoders of words without a limit; capprune_runtime runs every bundle")


def load(name):
    """Return the call of a model, and the interpreter, which must live as long."""
    interpreter = Interpreter(str(folder / manifest[name]["file"]))
    return interpreter.get_signature_runner(manifest[name]["signature"]), interpreter


encode, _encoder = load("encoder")
step, _decoder = load("decoder")

photo = ImageOps.exif_transpose(Image.open(photo_path)).convert("RGB")
pixels = np.asarray(photo.resize((size, size), Image.Resampling.BILINEAR), np.float32)  # the whole photo, squashed
seen = encode(photo=(pixels[np.newaxis] - np.float32(preprocessing["mean"])) / np.float32(preprocessing["scale"]))

held = {name: seen[name] for name in interface["held"]}  # set once per photo: keys and values of the attention
zeros = {name: np.zeros((1, *spec["shape"]), np.float32) for name, spec in state_specs.items()}
state = {name: seen.get(name, zeros[name]) for name in state_specs}
token, caption = decoding["start"], []
for _ in range(decoding["max_tokens"]):
    said = step(token=np.array([token], np.int32), **held, **state)
    scores = said["scores"][0]  # (V,), for each word of the vocabulary
    scores[decoding["suppress"]] = -np.inf  # <pad>, <start>, <unk>
    token = int(scores.argmax())
    if token == decoding["end"]:
        break
    caption.append(words[token])
    state = {name: said[name] for name in state_specs}

print(" ".join(caption))
