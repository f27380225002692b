"""`weir top` in a terminal: what it shows, what its keys do, how it leaves."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import termios
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from terminal import Terminal

ROOT = Path(__file__).resolve().parents[2]
WEIR = Path(os.environ.get("WEIR_COMMAND", ROOT / "build/cli/weir"))

# A full queue with a producer that waits, one that drops, one that rests, and one in a child.
PROGRAM = """
import os, sys, threading, time, weir

jobs = weir.Queue(10, name="jobs")
news = weir.Queue(5, name="news", overflow="drop_oldest")
rest = weir.Queue(100, name="rest")
for n in range(20):
    rest.put(n)

def produce():
    while True:
        jobs.put(1)

def consume():
    while True:
        jobs.get()
        news.put(1)
        time.sleep(0.01)

for function in (produce, consume):
    threading.Thread(target=function, daemon=True).start()
if os.fork() == 0:
    child = weir.Queue(3, name="of the child")
    sys.stdin.read()
    os._exit(0)
print("ready", flush=True)
sys.stdin.read()
os._exit(0)
"""

DOWN, UP, HOME, END, PAGE_DOWN = "\x1b[B", "\x1b[A", "\x1b[1~", "\x1b[4~", "\x1b[6~"
ESCAPE = "\x1b"
Top = Callable[..., Terminal]


def start_program(pages: Path) -> subprocess.Popen[str]:
    source = pages.parent / "program.py"  # its text is no part of the command that is seen
    source.write_text(PROGRAM)
    program = subprocess.Popen(
        [sys.executable, source], text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        env=os.environ | {"WEIR_STATS_DIR": str(pages)},
    )  # fmt: skip
    assert program.stdout and program.stdout.readline() == "ready\n"
    return program


def stop_program(program: subprocess.Popen[str]) -> None:
    program.communicate()


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("pages")
    folder.chmod(0o700)
    program = start_program(folder)
    yield folder
    stop_program(program)


@pytest.fixture
def top(pages: Path) -> Iterator[Top]:
    """Opens terminals with `weir top` in them."""
    opened: list[Terminal] = []

    def open_one(*options: str, columns: int = 80, rows: int = 24, **environment: str) -> Terminal:
        environment = {"WEIR_STATS_DIR": str(pages)} | environment
        command: list[str | Path] = [WEIR, "top", "--interval", "0.2", *options]
        opened.append(Terminal(command, columns, rows, **environment))
        return opened[-1]

    yield open_one
    for terminal in opened:
        terminal.close()


def selected(terminal: Terminal) -> str:
    """The line that is selected: the last one in reverse."""
    y = max(y for y in range(4, len(terminal.lines) - 1) if terminal.is_reverse(y))
    return terminal.lines[y]


# ---- what is seen ---------------------------------------------------------------------------


@pytest.mark.parametrize(("columns", "rows"), [(80, 24), (200, 50), (40, 8), (500, 120)])
def test_every_object_is_seen_with_its_numbers(top: Top, columns: int, rows: int) -> None:
    terminal = top("--list", "--sort", "depth", columns=columns, rows=rows)
    terminal.shows("jobs")
    assert len(terminal.lines) == rows
    assert all(len(line) <= columns for line in terminal.lines)
    if columns >= 80:
        terminal.shows("2 processes, 4 objects", "10/10", "20/100", "news", "of the child", "0/3")
    if columns >= 200:
        terminal.shows("KIND", "STARVED", "WAIT50", "SERV99", "WORKERS", "DEPTH OVER TIME")


def test_what_holds_everything_back_is_said_and_marked_without_colour(top: Top) -> None:
    terminal = top()
    terminal.until(lambda: terminal.lines[1].startswith("▶ "), "root")
    assert "jobs" in terminal.lines[1] + terminal.lines[2]
    terminal.until(lambda: any(re.match("▶.*jobs.*10/10", line) for line in terminal.lines), "mark")


def test_a_forked_child_is_below_its_parent(top: Top) -> None:
    terminal = top(columns=120)
    terminal.shows("of the child")
    processes = [line for line in terminal.lines if "MiB" in line]
    assert len(processes) == 2
    indents = [len(line) - len(line.lstrip()) for line in processes]
    assert indents[0] < indents[1]
    assert terminal.line_of("jobs") < terminal.line_of(processes[1]) < terminal.line_of("child")


def test_drops_are_an_issue_with_its_reason(top: Top) -> None:
    terminal = top(rows=80)
    terminal.shows("issue", "news")
    terminal.type("i")
    terminal.shows("drops", "queue 'news' dropped")
    (line,) = [line for line in terminal.lines if line.startswith("! drops")]
    assert "since" in line
    terminal.type("\r")
    terminal.shows("Numbers since", "dropped per second")


COLOUR = re.compile(rb"\x1b\[([0-9]*;)*[34][1-7](;[0-9]*)*m")


@pytest.mark.parametrize(
    ("options", "environment", "coloured"),
    [
        ([], {}, True),
        (["--no-color"], {}, False),
        ([], {"NO_COLOR": "1"}, False),
        ([], {"NO_COLOR": ""}, True),
        ([], {"TERM": "vt100"}, False),
    ],
)
def test_colours_are_left_out_where_nobody_wants_them(
    top: Top, options: list[str], environment: dict[str, str], coloured: bool
) -> None:
    terminal = top(*options, **environment)
    terminal.shows("jobs", "10/10")
    terminal.until(lambda: "1 issue" in terminal.text or "issues" in terminal.text, "issues")
    assert bool(COLOUR.search(terminal.raw)) == coloured


def test_where_there_is_no_utf8_everything_is_ascii(top: Top) -> None:
    terminal = top(LC_ALL="C", rows=70)
    terminal.shows("########", "|-jobs")
    terminal.until(lambda: terminal.lines[1].startswith("> "), "root")
    terminal.type("\r")
    terminal.shows("Numbers since")
    assert terminal.raw.isascii()


def test_a_size_that_changes_is_followed(top: Top) -> None:
    terminal = top(columns=200, rows=50)
    terminal.shows("DEPTH OVER TIME")
    terminal.resize(80, 24)
    terminal.until(lambda: "TREND" in terminal.text and "quit" not in terminal.lines[-2], "80x24")
    terminal.resize(39, 10)
    terminal.shows("terminal too small")
    terminal.resize(1, 1)
    terminal.resize(40, 7)
    terminal.shows("terminal too small")
    terminal.type("j")
    terminal.resize(120, 30)
    terminal.shows("jobs", "KIND")
    for columns in range(41, 140, 7):
        terminal.resize(columns, 8 + columns // 5)
    terminal.shows("jobs", "10/10")


def test_once_on_a_terminal_fits_it_and_cuts_names(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    code = f"import sys, weir; q = weir.Queue(3, name={'x' * 60!r}); print(1, flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code], text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        env=os.environ | {"WEIR_STATS_DIR": str(tmp_path)},
    ) as program:  # fmt: skip
        assert program.stdout and program.stdout.readline()
        command: list[str | Path] = [WEIR, "top", "--once", "-d", "0.1"]
        with Terminal(command, columns=50, WEIR_STATS_DIR=str(tmp_path)) as terminal:
            assert terminal.wait() == 0
            table = terminal.raw.decode().partition("\r\n\r\n")[0].split("\r\n")
            assert len(table) == 3 and all(len(line) <= 50 for line in table)
            assert table[2].startswith("   xxxxxxxx") and "queue" in table[2]
        program.communicate("\n")


# ---- keys -----------------------------------------------------------------------------------


def test_the_selection_moves_and_stays_inside(top: Top) -> None:
    terminal = top("--list")
    terminal.shows("of the child")
    assert "jobs" in selected(terminal)

    def until_selected(name: str) -> None:
        terminal.until(lambda: name in selected(terminal), name)

    for keys, name in [
        ("j", "news"), (DOWN, "rest"), ("k", "news"), (UP + UP + UP, "jobs"),
        (END, "of the child"), (DOWN, "of the child"), (HOME, "jobs"),
        (PAGE_DOWN, "of the child"), ("g", "jobs"), ("G", "of the child"),
    ]:  # fmt: skip
        terminal.type(keys)
        until_selected(name)


def test_enter_looks_into_an_object_and_escape_comes_back(top: Top) -> None:
    terminal = top(columns=120, rows=60)
    terminal.shows("jobs")
    terminal.type("\r")
    terminal.shows("jobs  queue  of", "Numbers since", "peak depth", "callers blocked", "wait p99")
    terminal.shows("100 % full")  # but for the moment in which something is taken
    terminal.type(ESCAPE)
    terminal.shows("OBJECT")
    terminal.type(HOME + "\r")
    terminal.shows("a process: Enter looks into its objects")


def test_a_long_page_scrolls(top: Top) -> None:
    terminal = top()
    terminal.shows("jobs")
    terminal.type("\r")
    terminal.shows("jobs  queue")
    terminal.type(END)
    terminal.shows("put blocked")
    terminal.hides("jobs  queue")
    terminal.type(HOME)
    terminal.shows("jobs  queue")


def test_a_filter_works_while_it_is_typed(top: Top) -> None:
    terminal = top("--list")
    terminal.shows("jobs", "news", "rest")
    terminal.type("/NEW")
    terminal.shows("filter (name, kind, pid, command): NEW_")
    terminal.hides("rest")
    terminal.type("x")
    terminal.shows("Nothing matches")
    terminal.type("\x7f\r")
    terminal.shows("filter: NEW", "news")
    terminal.type(ESCAPE)
    terminal.shows("jobs", "rest")
    terminal.type("/shared")
    terminal.hides("jobs")
    terminal.type(ESCAPE)
    terminal.shows("jobs", "rest")


def test_sorting_goes_through_the_columns_and_back_to_the_tree(top: Top) -> None:
    terminal = top("--list")
    terminal.shows("jobs")
    terminal.type("sss")
    terminal.shows("DEPTH▾")
    order = [terminal.line_of(name) for name in ("jobs", "rest", "of the child")]
    assert order == sorted(order)
    terminal.type("r")
    terminal.until(
        lambda: (
            terminal.line_of("of the child") < terminal.line_of("rest")
            and terminal.line_of("rest") < terminal.line_of("10/10")
        ),
        "reverse order",
    )
    terminal.type("<<<")
    terminal.shows("sorted by order of creation")


def test_the_tree_becomes_one_list(top: Top) -> None:
    terminal = top()
    terminal.shows("├ jobs", "MiB")
    terminal.type("t")
    terminal.hides("├")
    assert "MiB" not in terminal.text
    terminal.type("t")
    terminal.shows("├ jobs")


def test_paused_means_nothing_changes_but_the_view(top: Top) -> None:
    terminal = top(columns=150)
    terminal.shows("jobs")
    terminal.type("p")
    terminal.shows("PAUSED")
    before = terminal.line_of("jobs"), terminal.lines[terminal.line_of("news")]
    for _ in range(15):
        terminal.read(0.1)
    assert before == (terminal.line_of("jobs"), terminal.lines[terminal.line_of("news")])
    terminal.type("?")
    terminal.shows("look into an object")
    terminal.type("? ")
    terminal.hides("PAUSED")


def test_the_interval_can_be_changed(top: Top) -> None:
    terminal = top()
    terminal.shows("every 0.2 s")
    terminal.type("+")
    terminal.shows("every 0.4 s")
    terminal.type("-")
    terminal.shows("every 0.2 s")
    terminal.type("d\x151.5\r")
    terminal.shows("every 1.5 s")
    terminal.type("d\x15soon\r")
    terminal.shows("the interval is from 0.1 to 3600 seconds", "every 1.5 s")


def test_random_keys_do_no_harm(top: Top) -> None:
    terminal = top()
    terminal.shows("jobs")
    keys = "jkst/ab\r\x1b[Bi\x1b?\rr<>pp \x1b[5~gG\x7f\x1b[6~d\x1bt+-+\x01\xff\x1bOP"
    for n in range(60):
        terminal.type((keys[n % 7 :] + keys[::-1]).replace("q", "").encode("latin-1"))
        terminal.resize(30 + 7 * (n % 20), 5 + n % 30)
        terminal.read(0.01)
    terminal.resize(80, 24)
    terminal.type(b"\x1b\x1b")
    terminal.shows("every")
    terminal.type(b"\r\x1b\x1bq")
    assert terminal.wait() == 0


# ---- leaving --------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["q", "\x03", signal.SIGTERM, signal.SIGINT])
def test_it_leaves_the_terminal_as_it_was(top: Top, how: str | signal.Signals) -> None:
    terminal = top(TERM="xterm-256color")
    before = terminal.attributes
    terminal.until(lambda: b"jobs" in terminal.raw, "rows")
    assert termios.tcgetattr(terminal.fd) != before
    if isinstance(how, str):
        terminal.type(how)
    else:
        os.kill(terminal.pid, how)
    assert terminal.wait() == 0
    assert termios.tcgetattr(terminal.fd) == before
    assert b"\x1b[?1049l" in terminal.raw  # the screen from before
    assert b"\x1b[?25h" in terminal.raw[terminal.raw.rindex(b"\x1b[?25l") :]  # and a cursor


def test_ctrl_z_stops_it_and_fg_brings_it_back(pages: Path) -> None:
    script = f"set -m; {WEIR} top; echo it stands; read; fg >/dev/null; echo it ended"
    command = ["bash", "-c", script]
    with Terminal(command, WEIR_STATS_DIR=str(pages)) as terminal:
        terminal.shows("jobs", "quit")
        terminal.type("\x1a")
        terminal.shows("it stands")
        terminal.resize(100, 30)
        terminal.type("\n")
        terminal.shows("jobs", "quit")
        terminal.hides("it stands")
        terminal.type("q")
        terminal.shows("it ended")
        assert terminal.wait() == 0


def test_a_terminal_that_goes_away_ends_it(top: Top) -> None:
    terminal = top()
    terminal.shows("jobs")
    pid, fd = terminal.pid, terminal.fd
    terminal.fd = os.open(os.devnull, os.O_RDWR)
    os.close(fd)
    assert os.waitpid(pid, 0)[0] == pid
    terminal.status = 0


@pytest.mark.parametrize(
    ("term", "sentence"),
    [
        ("", "TERM is not set"),
        ("dumb", "cannot place the cursor"),
        ("no-such-terminal", "unknown"),
    ],
)
def test_a_terminal_that_cannot_do_it_is_told_of_once(top: Top, term: str, sentence: str) -> None:
    terminal = top(TERM=term)
    assert terminal.wait() == 2
    said = terminal.text.replace("\n", "")
    assert sentence in said and "--once" in said


# ---- the demo -------------------------------------------------------------------------------


@pytest.fixture
def demo(tmp_path: Path) -> list[str | Path]:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "0").write_bytes(os.urandom(1 << 20))
    for n in range(1, 90):
        os.link(tree / "0", tree / str(n))
    output = tmp_path / "out.sha256"
    workers = ["--producers", "20", "--workers", "1"]  # or it may be over before anybody looks
    return [ROOT / "scripts/demo", *workers, "--output", output, tree]


def test_the_demo_is_watched_until_it_ends_and_then_tells_its_result(
    demo: list[str | Path],
) -> None:
    with Terminal(demo, columns=100, rows=40) as terminal:
        terminal.shows("weir top", "digest", "paths", "outcomes")
        terminal.shows("throughput", "law: 90 found = 90 digested: holds")
        assert terminal.wait() == 0


def test_whoever_has_seen_enough_of_the_demo_still_gets_its_result(demo: list[str | Path]) -> None:
    with Terminal(demo, columns=100, rows=40) as terminal:
        terminal.shows("weir top", "digest")
        terminal.type("q")
        terminal.shows("the example goes on", "law: 90 found = 90 digested: holds")
        assert terminal.wait() == 0


def test_ctrl_c_ends_the_demo_early_with_what_it_has_found(demo: list[str | Path]) -> None:
    with Terminal(demo, columns=100, rows=40) as terminal:
        terminal.shows("weir top", "digest")
        terminal.type("\x03")
        terminal.shows("law:", "holds")
        assert terminal.wait() in (0, 128 + signal.SIGTERM)  # 0: it was done already


def test_without_a_terminal_the_demo_prints_a_table_in_the_middle(demo: list[str | Path]) -> None:
    ran = subprocess.run(
        demo, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=100
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.index("OBJECT") < ran.stdout.index("law: 90 found = 90 digested: holds")


def test_an_object_whose_process_ends_is_gone_and_so_are_its_rows(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    program = start_program(tmp_path)
    command: list[str | Path] = [WEIR, "top", "-d", "0.2"]
    with Terminal(command, WEIR_STATS_DIR=str(tmp_path)) as terminal:
        terminal.shows("jobs")
        terminal.type("\r")
        terminal.shows("jobs  queue")
        stop_program(program)
        terminal.shows("It is gone")
        terminal.type(ESCAPE)
        terminal.shows("No process of this user uses weir now")
        again = start_program(tmp_path)
        terminal.shows("jobs")
        stop_program(again)
