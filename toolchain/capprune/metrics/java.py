"""The two Java programs in pycocoevalcap: Stanford's PTB tokenizer and METEOR 1.5.

They are started with pycocoevalcap's own options, but over pipes. The wrappers of pycocoevalcap write a file into the
installed package, which fails in a read-only installation, and leave a process and its pipes open.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import itertools
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from capprune.data.cache_folder import default_cache
from capprune.metrics.paraphrases import paraphrases_for
from capprune_runtime.errors import CapPruneError, MissingExtra

# Java before 18 uses the encoding of the locale, but captions are always UTF-8. The serial collector avoids worker
# threads, which do not pay off within 20 seconds.
OPTIONS = ("-Dfile.encoding=UTF-8", "-Dstdout.encoding=UTF-8", "-XX:+UseSerialGC")
# By default Java writes warnings to stdout, between the answers. Java 8 does not support these options.
LOG_OPTIONS = ("-Xlog:disable", "-Xlog:all=warning:stderr", "-XX:+DisplayVMOutputToStderr")
TOKENIZER_JAR = Path("tokenizer", "stanford-corenlp-3.4.1.jar")
METEOR_JAR = Path("meteor", "meteor-1.5.jar")
METEOR_TABLE = Path("meteor", "data", "paraphrase-en.gz")
METEOR_CACHE = "meteor"  # folder in the cache
METEOR_SEPARATOR = "|||"

# Tokens that the COCO caption challenge removes, as in pycocoevalcap's tokenizer.
PUNCTUATION = frozenset(
    ["''", "'", "``", "`", "-LRB-", "-RRB-", "-LCB-", "-RCB-", ".", "?", "!", ",", ":", "-", "--", "...", ";"]
)


def pycocoevalcap_folder() -> Path:
    """Return the folder of the installed package, which holds the jars.

    Raises:
        MissingExtra: pycocoevalcap is not installed.
    """
    found = importlib.util.find_spec("pycocoevalcap")
    if found is None or not found.submodule_search_locations:
        raise MissingExtra(
            "caption metrics need pycocoevalcap, which is not installed",
            hint="pip install 'capprune[train]'",
        )
    return Path(next(iter(found.submodule_search_locations)))


@functools.cache
def java_command() -> tuple[str, ...] | None:
    """Return `java` with the options it accepts, or None if Java does not run."""
    java = shutil.which("java")
    if java is None:
        return None
    for options in ((*OPTIONS, *LOG_OPTIONS), OPTIONS):
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            # macOS has a /usr/bin/java that only asks for an installation
            command = (java, *options)
            if subprocess.run([*command, "-version"], capture_output=True, timeout=60, check=False).returncode == 0:
                return command
    return None


def ptb_tokens(captions: Sequence[str]) -> list[str]:
    """Tokenise captions as the COCO caption challenge does.

    Args:
        captions: Raw captions, one caption each, in any script.

    Returns:
        For each caption its lower-case tokens without punctuation, joined by single spaces.

    Raises:
        MissingExtra: Java or pycocoevalcap is missing.
        CapPruneError: The Java program failed.
    """
    if not captions:
        return []
    command = [
        *(*_java(), "-cp", str(pycocoevalcap_folder() / TOKENIZER_JAR)),
        *("edu.stanford.nlp.process.PTBTokenizer", "-preserveLines", "-lowerCase"),
    ]
    # One caption per line, so captions must not contain line breaks.
    text = "\n".join(" ".join(caption.split()) for caption in captions) + "\n"
    done = subprocess.run(command, input=text.encode(), capture_output=True, check=False)
    *lines, rest = done.stdout.decode().split("\n")
    if done.returncode != 0 or rest or len(lines) != len(captions):
        raise _java_failed("the PTB tokenizer", done.returncode, done.stderr.decode(errors="replace"))
    return [" ".join(token for token in line.split() if token not in PUNCTUATION) for line in lines]


def meteor_score(references: Sequence[Sequence[str]], hypotheses: Sequence[str]) -> float:
    """Return METEOR 1.5 of a whole set of captions (English, with its paraphrase table).

    Args:
        references: For each photo its tokenised references.
        hypotheses: For each photo its tokenised caption.

    Returns:
        The corpus score (0 to 1).

    Raises:
        MissingExtra: Java or pycocoevalcap is missing.
        CapPruneError: The Java program failed.
    """
    java, jar = _java(), pycocoevalcap_folder() / METEOR_JAR
    texts = itertools.chain(hypotheses, *references)
    table = paraphrases_for(texts, pycocoevalcap_folder() / METEOR_TABLE, default_cache() / METEOR_CACHE)
    command = [
        *(*java, "-Xmx2G", "-jar", str(jar)),
        *("-", "-", "-stdio", "-l", "en", "-norm", "-a", str(table.absolute())),
    ]
    with (
        tempfile.TemporaryFile() as complaints,
        subprocess.Popen(
            command,
            cwd=jar.parent,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=complaints,
            encoding="utf-8",
        ) as process,
    ):
        try:
            return _meteor_dialogue(process, references, hypotheses)
        except (OSError, ValueError) as error:  # a broken pipe, or an answer that is not a number
            _end(process)
            complaints.seek(0)
            said = complaints.read().decode(errors="replace") or str(error)
            raise _java_failed("METEOR", process.returncode, said) from error
        except BaseException:
            _end(process)
            raise


def _meteor_dialogue(
    process: subprocess.Popen[str], references: Sequence[Sequence[str]], hypotheses: Sequence[str]
) -> float:
    """Send one SCORE line per photo, read its statistics, and send one EVAL line with all of them."""
    assert process.stdin is not None and process.stdout is not None
    statistics = []
    for photo_references, hypothesis in zip(references, hypotheses, strict=True):
        parts = [part.replace(METEOR_SEPARATOR, "") for part in (*photo_references, hypothesis)]
        process.stdin.write(" ||| ".join(("SCORE", *parts)) + "\n")
        process.stdin.flush()
        statistics.append(process.stdout.readline().strip())
    process.stdin.write(" ||| ".join(("EVAL", *statistics)) + "\n")
    process.stdin.close()
    answers = process.stdout.read().split()  # one score per photo, then the corpus score
    if len(answers) != len(statistics) + 1:
        raise ValueError(f"{len(answers)} scores for {len(statistics)} photos")
    return float(answers[-1])


def _end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait()
    if process.stdin is not None:
        with contextlib.suppress(OSError):  # nobody reads the rest of the input
            process.stdin.close()


def _java() -> tuple[str, ...]:
    command = java_command()
    if command is None:
        raise MissingExtra(
            "the PTB tokenizer and METEOR need Java, and no `java` runs here",
            hint="install a Java runtime (Debian: apt install default-jre-headless), "
            "or use the tokenizer `plain` without METEOR",
        )
    return command


def _java_failed(program: str, returncode: int | None, said: str) -> CapPruneError:
    last_lines = "\n            ".join(said.strip().splitlines()[-3:])
    return CapPruneError(f"{program} failed", expected="exit code 0", found=f"{returncode}: {last_lines}")
