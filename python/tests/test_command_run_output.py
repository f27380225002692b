"""`weir run` in a terminal: its sentences hold no escapes of others, nor its progress lines."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from terminal import Terminal

ROOT = Path(__file__).resolve().parents[2]
WEIR = Path(os.environ.get("WEIR_COMMAND", ROOT / "build/cli/weir"))
RED = "\x1b[31m"

pytestmark = pytest.mark.skipif(not WEIR.exists(), reason="the command is not built")


def test_what_is_said_on_a_terminal_passes_no_escape_of_an_item_on() -> None:
    with Terminal(
        [WEIR, "run", "--tag", "--shell", ": {}; echo x; exit 1", ":::", f"a{RED}b"]
    ) as t:
        assert t.wait() == 3
        assert RED.encode() not in t.raw
        assert "a [31mb" in t.text
        assert "item 1 (a?[31mb): exit 1" in t.text


def test_lines_and_progress_do_not_mix_on_a_terminal(tmp_path: Path) -> None:
    job = f"echo one; until test -e {tmp_path}/go; do sleep 0.01; done; printf two; : {{}}"
    with Terminal([WEIR, "run", "--line-buffer", "--shell", job, ":::", "a"]) as terminal:
        terminal.shows("one", "0 done")
        (tmp_path / "go").touch()
        assert terminal.wait() == 0
        assert terminal.lines[:2] == ["one", "two"]
        assert "1 items: 1 done" in terminal.lines[2]
        assert terminal.lines[3] == ""
