"""Tables on stdout, for commands and benchmarks."""

from __future__ import annotations

from capprune_runtime.streams import printable


def table(title: str, columns: list[str], rows: list[list[str]], note: str | None = None) -> None:
    """Print a table on stdout; every column but the first is aligned to the right. Names may hold any characters."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    def text(value: str) -> Text:
        return Text(printable(value))  # never markup: names hold brackets

    heading, caption = text(title) if title else None, None if note is None else text(note)
    grid = Table(title=heading, title_justify="left", caption=caption, caption_justify="left")
    for index, column in enumerate(columns):
        grid.add_column(text(column), justify="left" if index == 0 else "right")
    for row in rows:
        grid.add_row(*map(text, row))

    class Output(Console):
        def on_broken_pipe(self) -> None:
            raise BrokenPipeError  # Rich would end the process with an error

    console = Output()
    console = console if console.is_terminal else Output(width=140)
    console.print(grid)
