"""A terminal for programs that need one: a pseudo-terminal, its screen as text, and as a picture.

    python terminal.py 80x24 PICTURE.png KEYS SECONDS COMMAND...

runs COMMAND, types KEYS ("\\r" is Enter, "\\e[B" Down), one each SECONDS, and writes what is then
seen.
"""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import sys
import termios
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import final

import pyte
from PIL import Image, ImageDraw, ImageFont

GENEROUS_S = 30.0
FONTS = Path("/usr/share/fonts/truetype/dejavu")
PAPER, INK = "#101418", "#d0d0d0"
COLOURS = {
    "red": "#ff5f5f", "green": "#5fd75f", "brown": "#e5c07b", "blue": "#6fa8ff",
    "cyan": "#56c8d8", "default": INK,
}  # fmt: skip


@final
class Terminal:
    """Runs a command in it; what it prints is read while somebody waits for something."""

    def __init__(
        self, command: Sequence[str | Path], columns: int = 80, rows: int = 24, **environment: str
    ) -> None:
        self.screen = pyte.Screen(columns, rows)
        self.raw = b""
        self.status: int | None = None
        self._stream = pyte.ByteStream(self.screen)
        environment = {"TERM": "linux", "LC_ALL": "C.UTF-8"} | environment
        # Programs believe these before they ask for the size, and not only shells export them:
        # whatever has loaded readline does.
        inherited = {k: v for k, v in os.environ.items() if k not in ("LINES", "COLUMNS")}
        held, go = os.pipe()
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            try:
                os.read(held, 1)
                size = struct.pack("HHHH", rows, columns, 0, 0)
                fcntl.ioctl(0, termios.TIOCSWINSZ, size)
                words = [str(word) for word in command]
                os.execvpe(words[0], words, inherited | environment)
            finally:
                os._exit(127)
        self.attributes = termios.tcgetattr(self.fd)  # before the command has changed any
        os.write(go, b"!")
        os.close(held)
        os.close(go)

    # -- what is seen

    @property
    def lines(self) -> list[str]:
        return [line.rstrip() for line in self.screen.display]

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    def line_of(self, part: str) -> int:
        """The number of the first line that has it; -1: none has."""
        return next((y for y, line in enumerate(self.lines) if part in line), -1)

    def is_reverse(self, y: int, x: int = 3) -> bool:
        return bool(self.screen.buffer[y][x].reverse)

    # -- what is done

    def type(self, keys: str | bytes) -> None:
        os.write(self.fd, keys.encode() if isinstance(keys, str) else keys)

    def resize(self, columns: int, rows: int) -> None:
        self.screen.resize(rows, columns)
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def read(self, seconds: float) -> bool:
        """Reads what comes within that time; False: the command has closed the terminal."""
        if not select.select([self.fd], [], [], seconds)[0]:
            return True
        try:
            data = os.read(self.fd, 65536)
        except OSError:  # Linux says so when the last one has closed it
            return False
        self.raw += data
        self._stream.feed(data)
        return bool(data)

    def until(self, holds: Callable[[], bool], what: str = "that") -> None:
        limit = time.monotonic() + GENEROUS_S
        while not holds():
            alive = self.read(0.02)
            assert (alive or holds()) and time.monotonic() < limit, f"no {what}:\n{self.text}"

    def shows(self, *parts: str) -> None:
        self.until(lambda: all(part in self.text for part in parts), f"sight of {parts}")

    def hides(self, part: str) -> None:
        self.until(lambda: part not in self.text, f"end of {part!r}")

    def wait(self) -> int:
        """Until the command has ended: its exit status, or minus the signal."""
        limit = time.monotonic() + GENEROUS_S
        while self.status is None:
            self.read(0.02)
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.status = os.waitstatus_to_exitcode(status)
            assert time.monotonic() < limit, f"it does not end:\n{self.text}"
        while self.read(0) and select.select([self.fd], [], [], 0)[0]:
            pass
        return self.status

    def close(self) -> None:
        if self.status is None:
            os.kill(self.pid, signal.SIGKILL)
            self.wait()
        os.close(self.fd)

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- as a picture

    def picture(self, path: Path) -> None:
        plain = ImageFont.truetype(str(FONTS / "DejaVuSansMono.ttf"), 14)
        bold = ImageFont.truetype(str(FONTS / "DejaVuSansMono-Bold.ttf"), 14)
        width, height = plain.getlength("x"), 17
        size = (round(self.screen.columns * width) + 16, self.screen.lines * height + 16)
        image = Image.new("RGB", size, PAPER)
        draw = ImageDraw.Draw(image)
        for y in range(self.screen.lines):
            for x in range(self.screen.columns):
                cell = self.screen.buffer[y][x]
                ink, paper = COLOURS.get(cell.fg, INK), PAPER
                if cell.reverse:
                    ink, paper = paper, ink
                at = (8 + x * width, 8 + y * height)
                draw.rectangle((*at, at[0] + width - 0.01, at[1] + height - 1), fill=paper)
                if not draw_block(draw, cell.data, at, width, height, ink):
                    draw.text(at, cell.data, font=bold if cell.bold else plain, fill=ink)
        image.quantize(64).save(path, optimize=True)


def draw_block(
    draw: ImageDraw.ImageDraw,
    character: str,
    at: tuple[float, float],
    width: float,
    height: float,
    ink: str,
) -> bool:
    """Blocks as terminals draw them: without gaps between the cells."""
    (x, y), code = at, ord(character[:1] or " ")
    if 0x2581 <= code <= 0x2588:
        draw.rectangle((x, y + height * (0x2588 - code) / 8, x + width, y + height - 1), fill=ink)
    elif 0x2589 <= code <= 0x258F:
        draw.rectangle((x, y, x + width * (0x2590 - code) / 8, y + height - 1), fill=ink)
    else:
        return False
    return True


def main() -> None:
    size, picture, keys, seconds, *command = sys.argv[1:]
    columns, rows = map(int, size.split("x"))
    with Terminal(command, columns, rows) as terminal:
        for key in ["", *re.findall(r"\\e\[\d*[A-Z~]|\\.|.", keys)]:
            terminal.type(key.encode().replace(b"\\e", b"\x1b").replace(b"\\r", b"\r"))
            end = time.monotonic() + float(seconds)
            while (left := end - time.monotonic()) > 0:
                terminal.read(left)
        terminal.picture(Path(picture))


if __name__ == "__main__":
    main()
