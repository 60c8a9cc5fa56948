"""The table of the operators of a .tflite and their forms, made from the file that the verifiers read."""

from __future__ import annotations

from capprune_runtime.tflite.operators import LIMITS, OPERATORS


def operator_table() -> str:
    """Return a Markdown table of every operator with its versions and forms."""
    rows = [
        f"| {rule.name} | {rule.versions[0]} to {rule.versions[1]} | {'<br>'.join(f'`{form}`' for form in rule.forms)} |"
        for rule in OPERATORS.values()
    ]
    return "\n".join(("| operator | versions | forms |", "|---|---|---|", *rows))


def limits_table() -> str:
    """Return a Markdown table of the cost limits of a file."""
    rows = [f"| `{name}` | {limit.base:,} | {limit.per_byte:,} |" for name, limit in LIMITS.items()]
    return "\n".join(("| cost | a file of any size | and for each byte |", "|---|---|---|", *rows))
