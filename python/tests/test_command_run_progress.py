"""`weir run` in a terminal: its line of progress, and Ctrl-C and Ctrl-Z."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from programs import weir_command
from terminal import Terminal

CTRL_C, CTRL_Z = "\x03", "\x1a"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WEIR_STATS_DIR", str(tmp_path))


def run(*words: str, columns: int = 80) -> Terminal:
    return Terminal([weir_command(), "run", *words], columns)


def shell(*words: str) -> Terminal:
    """Types the command into a shell with job control, which knows it as `weir`."""
    path = f"{weir_command().parent}:{os.environ['PATH']}"
    terminal = Terminal(["bash", "--norc", "--noprofile", "-i"], PS1="> ", PATH=path)
    terminal.shows(">")
    terminal.type("weir run " + " ".join(words) + "\r")
    return terminal


def state_of(pid: str) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]


def pid_in(terminal: Terminal, file: str) -> str:
    path = Path(file)
    terminal.until(lambda: path.exists() and path.read_text().endswith("\n"), f"start of {file}")
    return path.read_text().strip()


def test_the_line_is_written_over_and_gone_at_the_end() -> None:
    with run("-j2", "--shell", "sleep 0.4; echo {}", ":::", *"abcdef") as terminal:
        terminal.shows("done", "/2 run")
        assert terminal.wait() == 0
        assert terminal.lines[:6] and sorted(terminal.lines[:6]) == list("abcdef")
        assert terminal.lines[6].startswith("weir: run: 6 items: 6 done")
        assert "/2 run" not in terminal.text


def test_rate_and_time_left_come_when_they_are_known() -> None:
    items = Path("items")
    items.write_text("0\n" * 2000)
    with run("-j2", "--input", str(items), "sleep", "0.05") as terminal:
        terminal.shows("done")
        assert "left" not in terminal.text and "/s" not in terminal.text
        terminal.until(lambda: bool(re.search(r"/s .*% .* left", terminal.text)), "time left")


def test_a_narrow_terminal_is_not_overrun() -> None:
    with run("-j2", "--total", "90", "sleep", ":::", *["0.2"] * 90, columns=40) as terminal:
        terminal.until(lambda: " left" in terminal.text, "time left")
        assert [line for line in terminal.lines if line] == [terminal.lines[0]]
        terminal.resize(20, 24)
        seen = len(terminal.raw)
        terminal.until(lambda: terminal.raw.count(b"\r", seen) >= 3, "further lines")
        for line in terminal.raw[seen:].split(b"\r")[2:]:
            assert len(line.removesuffix(b"\x1b[K")) < 20


def test_there_is_none_with_no_progress_or_ungroup() -> None:
    for option in ("--no-progress", "--ungroup"):
        with run(option, "sleep", ":::", "0.6") as terminal:
            assert terminal.wait() == 0
            assert b"\x1b" not in terminal.raw


def test_ctrl_c_drains_and_a_second_one_ends() -> None:
    with run("-j1", "sleep", ":::", "60", "60") as terminal:
        terminal.shows("1/1 run")
        terminal.type(CTRL_C)
        terminal.shows("waiting for 1 jobs")
        terminal.type(CTRL_C)
        assert terminal.wait() == 130
        terminal.shows("1 items: 0 done, 0 failed, 0 skipped, 1 left")


@pytest.mark.parametrize("more", ["", "--ledger list"])
def test_ctrl_z_suspends_the_jobs_and_does_not_count_the_time(more: str) -> None:
    job = "'echo $$ >pid; sleep 1; echo has {}; touch ended'"
    with shell(more, "--timeout 3 --shell", job, "::: ended") as terminal:
        pid = pid_in(terminal, "pid")
        terminal.type(CTRL_Z)
        terminal.shows("Stopped")
        terminal.until(lambda: state_of(pid) in "TD", "stop of the job")
        terminal.type("sleep 3.5; echo so 'long'\r")
        terminal.shows("so long")
        assert state_of(pid) in "TD" and not Path("ended").exists()
        terminal.type("fg\r")
        terminal.shows("has ended", "1 items: 1 done, 0 failed")


def test_in_the_background_no_line_is_drawn() -> None:
    with shell("--quiet --shell", "'sleep 1; touch ended'", "::: a &") as terminal:
        terminal.until(Path("ended").exists, "end")
        assert " run" not in terminal.text.replace("weir run", "")
