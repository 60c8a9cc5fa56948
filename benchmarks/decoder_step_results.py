"""The section of RESULTS.md about one decoder step: synthetic weights, another grid, and trained runs."""

from __future__ import annotations

from result_text import Document, commands, machine, missing, ratio, table


def decoder_step_section(document: Document | None) -> str:
    """Return the section with bytes, times and errors of every storage form."""
    command = "python benchmarks/decoder_step.py --json > benchmarks/results/decoder_step.json"
    title = "## One step of a decoder"
    if document is None:
        return f"{title}\n\n{missing('it', [command])}"
    settings, emulated = document["settings"], document["environment"]["emulated"]
    what = (
        f"A Soft-Attention {settings['cell'].upper()} with embedding, hidden, attention and context of "
        f"{settings['width']}, {settings['vocabulary']:,} words and {settings['regions']} regions. The weights are "
        f"random and {settings['sparsity']:.1%} of every matrix is zero, in single weights or in blocks. "
        f"{settings['rounds']} rounds of {settings['steps_per_round']} steps, the formats interleaved. "
        "The error is the largest difference of any output from torch in float32."
    )
    parts = [title, what, _figures(document["rows"], emulated=emulated)]
    parts += [_sparse_bytes(row, document) for row in document["rows"] if "bytes_per_kept" in row]
    if other := document.get("other_regions"):
        parts += [f"The same with {other['regions']} regions:", _figures(other["rows"], emulated=emulated)]
    for run in document.get("trained", []):
        parts += [_trained(run), _figures(run["rows"], emulated=emulated)]
    runs = "".join(f" --run runs/{run['run']}" for run in document.get("trained", []))
    parts += [machine(document["environment"]), commands([command.replace(" --json", f"{runs} --json")])]
    return "\n\n".join(parts)


def _figures(rows: list[Document], *, emulated: bool) -> str:
    return table(
        ["format", "bytes", "µs p10", "µs p50", "µs p90", "against dense float32", "largest error"],
        [
            [
                f"`{row['format']}`",
                f"{row['bytes']:,}",
                *(f"{row[f'us_p{decile}']:,.0f}" for decile in (10, 50, 90)),
                _ratio(rows[0], row, emulated=emulated),
                f"{row['max_abs_err']:.1e}",
            ]
            for row in rows
        ],
    )


def _trained(run: Document) -> str:
    zeros = ", ".join(f"{name.removesuffix('.weight')} {share:.1%}" for name, share in run["sparsity"].items())
    overall = 1 - run["kept_weights"] / run["prunable_weights"]
    how = "greedy" if run["beam"] == 1 else f"beam {run['beam']}"
    return (
        f"Trained: `{run['run']}`, CIDEr-D {run['cider']:.4f} on `{run['cider_split']}` ({how}), {run['regions']} regions, "
        f"{overall:.2%} of the weights of `step` are zero; by layer: {zeros}."
    )


def _sparse_bytes(row: Document, document: Document) -> str:
    kept = row["kept_weights"]
    return (
        f"`{row['format']}` keeps {kept:,} of {document['prunable_weights']:,} weights. Values, column indices and row "
        f"pointers take {row['weight_bytes']:,} bytes, {row['weight_bytes'] / kept:.2f} per kept weight; the graph with "
        f"its biases takes {row['graph_bytes']:,}. Together that is {row['bytes_per_kept']:.2f} bytes per kept weight."
    )


def _ratio(base: Document, row: Document, *, emulated: bool) -> str:
    if row is base:
        return ""
    apart = row["us_p90"] < base["us_p10"] or base["us_p90"] < row["us_p10"]
    return ratio(base["us_p50"] / row["us_p50"], "faster", "slower", digits=1) if apart and not emulated else "—"
