"""Lines at the bottom of a terminal that change in place."""

import os
from collections.abc import Callable, Sequence

from rich.cells import cell_len
from rich.console import Console, ConsoleRenderable
from rich.live import Live
from rich.text import Text


class LiveLines(Live):
    """Lines that are drawn again several times a second, below what is printed meanwhile.

    A terminal that becomes narrower breaks the lines that it has into more rows. Rich would then
    leave some of them; here all are erased.

    Args:
        draw: returns the lines for a width.
        per_second: times that they are drawn; 0: whenever ``refresh`` is called.
    """

    def __init__(
        self, draw: Callable[[int], Sequence[Text]], console: Console, *, per_second: float
    ) -> None:
        self._draw = draw
        # Of the lines that are shown next, and of those on the terminal: their widths, and that of
        # the terminal for which they were drawn.
        self._drawn: list[int] = []
        self._shown: list[int] = []
        self._drawn_for = self._shown_for = width_of(console)
        super().__init__(
            console=console,
            auto_refresh=per_second > 0,
            refresh_per_second=per_second or 1,
            get_renderable=self._render,
        )

    def _render(self) -> Text:
        self._drawn_for = width_of(self.console)
        lines = self._draw(self._drawn_for)
        self._drawn = [cell_len(line.plain) for line in lines]
        return Text("\n").join(lines)

    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        width, render = width_of(self.console), self._live_render
        if width < self._shown_for and render.last_render_height:
            render._shape = width, rows_of(self._shown, width)
        self._shown, self._shown_for = self._drawn, self._drawn_for
        return super().process_renderables(renderables)


def width_of(console: Console) -> int:
    """Return the width of a terminal now; a variable COLUMNS may have what it was."""
    try:
        return min(console.width, os.get_terminal_size(console.file.fileno()).columns)
    except (OSError, ValueError):  # not really a terminal
        return console.width


def rows_of(widths: Sequence[int], width: int) -> int:
    """Return the rows that lines take on a terminal that breaks them at ``width``."""
    return sum(max(1, -(-line // width)) for line in widths)
