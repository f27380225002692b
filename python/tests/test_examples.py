"""Every example does what its page says, seen from outside: exit status, output, files."""

from __future__ import annotations

import importlib.util
import os
import pty
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from programs import weir_command

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
DIGEST_TREE = [sys.executable, str(EXAMPLES / "digest_tree.py")]
Finished = subprocess.CompletedProcess[str]


def run(program: str, *args: str | Path, cwd: Path | None = None) -> Finished:
    command = [sys.executable, str(EXAMPLES / program), *map(str, args)]
    return subprocess.run(
        command, cwd=cwd, capture_output=True, timeout=60, text=True, errors="surrogateescape"
    )


def rows(finished: Finished) -> dict[str, list[str]]:
    """The cells of a printed table by the name of their row."""
    cells = (re.split(r"\s{2,}", line.strip()) for line in finished.stdout.splitlines())
    return {name: rest for name, *rest in cells}


# ---- digest_tree --------------------------------------------------------------------------------


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """300 files with contents of all kinds, some of them with names of all kinds."""
    top = tmp_path / "tree"
    names = [os.fsencode(f"{n % 7}/{n % 3}/file {n}") for n in range(294)]
    names += [b"\xff\xfe not utf-8", b"a\nnewline", b"back\\slash", b"\\", b"return\r", b"tab\t"]
    for number, name in enumerate(names):
        path = Path(os.fsdecode(os.path.join(os.fsencode(top), name)))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"" if number == 1 else os.urandom(97 * number) + bytes(13 * number))
    return top


@pytest.fixture
def mountain(tmp_path: Path) -> Path:
    """A gigabyte of work in two thousand names of one file."""
    top = tmp_path / "mountain"
    top.mkdir()
    (top / "0").write_bytes(os.urandom(512 << 10))
    for number in range(1, 2000):
        os.link(top / "0", top / str(number))
    return top


def start(top: Path, *args: str | Path, cwd: Path) -> subprocess.Popen[str]:
    """Starts digest_tree as the leader of a process group, and waits for its first results."""
    process = subprocess.Popen(
        [*DIGEST_TREE, str(top), *map(str, args)],
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    sums = cwd / "out/digest_tree.sha256"
    deadline = time.monotonic() + 30
    while not (sums.exists() and sums.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert process.poll() is None
    return process


def sha256sum_accepts(sums: Path, cwd: Path) -> int:
    """How many files `sha256sum -c` found right; fails unless that is all of them."""
    check = subprocess.run(
        ["sha256sum", "--strict", "-c", sums], cwd=cwd, capture_output=True, timeout=60
    )
    assert check.returncode == 0, check.stderr
    return check.stdout.count(b": OK\n")


def test_digest_tree_digests_each_file_once_and_sha256sum_agrees(tree: Path) -> None:
    finished = run("digest_tree.py", "tree", "--large", "20K", cwd=tree.parent)
    assert finished.returncode == 0, finished.stderr
    assert "law: 300 found = 300 digested: holds" in finished.stdout
    assert sha256sum_accepts(tree.parent / "out/digest_tree.sha256", tree.parent) == 300
    sizes = (tree.parent / "out/digest_tree.tsv").read_bytes().splitlines()
    assert sizes[0] == b"outcome\tsize\tcompressed\tsha256\tpath\tdetail"
    total = sum(int(line.split(b"\t")[1]) for line in sizes[1:])
    assert total == sum(path.stat().st_size for path in tree.rglob("*") if path.is_file())
    assert len({line.split(b"\t")[4] for line in sizes[1:]}) == 300


def test_digest_tree_counts_and_reports_what_it_cannot_digest(tree: Path) -> None:
    os.mkfifo(tree / "fifo")
    os.symlink("loop", tree / "loop")
    os.symlink("..", tree / "parent")
    os.symlink("nowhere", tree / "dangling")
    (tree / "large").write_bytes(bytes(200_000))
    here = os.getcwd()
    os.chdir(tree)  # the path of a socket must be short
    try:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind("socket")
    finally:
        os.chdir(here)
    # A file that says at open that all is well, and fails when it is read, also for root.
    finished = run(
        "digest_tree.py", tree, "/proc/self/mem", "--max-file-size", "100K", cwd=tree.parent
    )
    assert finished.returncode == 0, finished.stderr
    table = rows(finished)
    assert table["digested"] == ["300"]
    assert table["not regular"] == ["2"]
    assert table["symlink loop"] == ["1"]
    assert table["symbolic link"] == ["2"]
    assert table["too large"] == ["1"]
    assert table["unreadable"] == ["1"]
    assert "law: 307 found" in finished.stdout
    assert ": holds" in finished.stdout
    for words in ("(FIFO)", "(socket)", "symlink loop:", "too large:", "unreadable:"):
        assert words in finished.stderr
    assert b"\nunreadable\t" in (tree.parent / "out/digest_tree.tsv").read_bytes()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_digest_tree_survives_missing_permissions(tree: Path) -> None:
    (tree / "secret").write_bytes(b"x")
    (tree / "secret").chmod(0)
    (tree / "closed").mkdir(mode=0)
    finished = run("digest_tree.py", tree, cwd=tree.parent)
    assert finished.returncode == 0, finished.stderr
    assert rows(finished)["unreadable"] == ["1"]
    assert rows(finished)["directory not readable"] == ["1"]
    assert "law: 302 found" in finished.stdout


def test_digest_tree_counts_files_that_vanish_between_the_walk_and_the_read(tree: Path) -> None:
    program = f"""
import sys
sys.path.insert(0, {str(EXAMPLES)!r})
import digest_tree
walk = digest_tree.walk
def walk_and_more(tops):
    yield from walk(tops)
    yield b"tree/gone"
digest_tree.walk = walk_and_more
sys.exit(digest_tree.main())
"""
    finished = subprocess.run(
        [
            sys.executable,
            "-c",
            program,
            "tree",
        ],
        cwd=tree.parent,
        capture_output=True,
        timeout=60,
        text=True,
    )
    assert finished.returncode == 0, finished.stderr
    assert "law: 301 found = 300 digested + 1 vanished: holds" in finished.stdout
    assert "vanished: 'tree/gone'" in finished.stderr


def test_digest_tree_lists_twenty_troubles_and_counts_the_others(tree: Path) -> None:
    for number in range(30):
        os.mkfifo(tree / f"fifo {number}")
    finished = run("digest_tree.py", tree, cwd=tree.parent)
    assert finished.stderr.count("(FIFO)") == 20
    assert "there are more without a digest" in finished.stderr
    assert rows(finished)["not regular"] == ["30"]


def test_digest_tree_leaves_out_what_it_writes_itself(tree: Path) -> None:
    finished = run("digest_tree.py", ".", cwd=tree.parent)
    assert "law: 302 found = 300 digested + 2 own output: holds" in finished.stdout
    assert sha256sum_accepts(tree.parent / "out/digest_tree.sha256", tree.parent) == 300


def test_digest_tree_stops_at_its_limit_in_a_stable_order(tree: Path) -> None:
    def digested() -> set[bytes]:
        finished = run("digest_tree.py", "tree", "--limit", "100", cwd=tree.parent)
        assert "law: 100 found = 100 digested: holds" in finished.stdout
        return set((tree.parent / "out/digest_tree.sha256").read_bytes().splitlines())

    assert digested() == digested()


@pytest.mark.parametrize("backlog", ["1", "7", "2x", "auto", "none"])
def test_digest_tree_takes_every_kind_of_backlog(tree: Path, backlog: str) -> None:
    finished = run("digest_tree.py", tree, "--backlog", backlog, cwd=tree.parent)
    assert finished.returncode == 0, finished.stderr
    assert "law: 300 found = 300 digested: holds" in finished.stdout


def test_digest_tree_drains_and_prints_its_table_on_ctrl_c(mountain: Path, tmp_path: Path) -> None:
    process = start(mountain, "--limit", "0", "--producers", "20", cwd=tmp_path)
    os.killpg(process.pid, signal.SIGINT)  # as the terminal does: the workers get it too
    out, err = process.communicate(timeout=30)
    assert process.returncode == 130, err
    assert "stopping" in err
    assert "Traceback" not in err
    found = re.search(r"law: ([\d,]+) found = ([\d,]+) digested: holds", out)
    assert found, out
    assert found[1] == found[2]
    digested = int(found[1].replace(",", ""))
    assert 0 < digested < 2000
    assert sha256sum_accepts(tmp_path / "out/digest_tree.sha256", tmp_path) == digested


def test_digest_tree_stops_at_once_on_the_second_ctrl_c(mountain: Path, tmp_path: Path) -> None:
    process = start(mountain, "--limit", "0", "--producers", "400", cwd=tmp_path)
    os.killpg(process.pid, signal.SIGINT)
    assert process.stderr
    while "stopping" not in process.stderr.readline():
        pass
    began = time.monotonic()
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert time.monotonic() - began < 1
    assert process.returncode == 130
    assert "stopped at once" in err
    assert "law" not in out
    for _ in range(100):  # no process of the group is left
        try:
            os.killpg(process.pid, 0)
        except ProcessLookupError:
            break
        time.sleep(0.02)
    else:
        pytest.fail("a worker was left behind")


def test_digest_tree_loses_nothing_when_a_worker_is_killed(mountain: Path, tmp_path: Path) -> None:
    process = start(mountain, "--limit", "200", cwd=tmp_path)
    pids = Path(f"/proc/{process.pid}/task").glob("*/children")
    workers = [int(pid) for path in pids for pid in path.read_text().split()]
    assert workers
    os.kill(workers[0], signal.SIGKILL)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 0, err
    assert "law: 200 found = 200 digested: holds" in out


def test_digest_tree_ends_the_walk_when_its_time_is_up(mountain: Path, tmp_path: Path) -> None:
    args: list[str | Path] = [mountain, "--seconds", "0.5", "--producers", "20"]
    finished = run("digest_tree.py", *args, cwd=tmp_path)
    assert finished.returncode == 0, finished.stderr
    assert re.search(r"law: ([\d,]+) found = \1 digested: holds", finished.stdout)


@pytest.mark.parametrize(
    ("output", "why"),
    [("/dev/full", "No space left on device"), ("/dev/null/x", "Not a directory")],
)
def test_digest_tree_says_when_it_cannot_write(tree: Path, output: str, why: str) -> None:
    sizes = tree.parent / "sizes.tsv"
    finished = run("digest_tree.py", tree, "--output", output, "--sizes", sizes, cwd=tree.parent)
    assert finished.returncode == 1
    assert "cannot write" in finished.stderr
    assert why in finished.stderr
    assert "Traceback" not in finished.stderr


@pytest.mark.parametrize(
    "options",
    [
        ["--backlog", "0"],
        ["--backlog", "False"],
        ["--backlog", "3.5"],
        ["--producers", "-1"],
        ["--workers", "0"],
        ["--limit", "-3"],
        ["--limit", "many"],
        ["--large", "big"],
        ["--executor", "other"],
        ["--nonsense"],
        ["/nonexistent"],
        ["/usr", "/usr/share"],
        ["/usr", "/usr"],
    ],
)
def test_digest_tree_refuses_bad_options_in_a_sentence(tmp_path: Path, options: list[str]) -> None:
    finished = run("digest_tree.py", *options, cwd=tmp_path)
    assert finished.returncode == 2
    assert finished.stdout == ""
    assert re.fullmatch(r"digest_tree: .+\n", finished.stderr)
    assert not list(tmp_path.iterdir())


def test_digest_tree_is_quiet_when_nobody_reads_its_table(tree: Path) -> None:
    process = subprocess.Popen(
        [*DIGEST_TREE, "tree"], cwd=tree.parent, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout
    assert process.stderr
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait(timeout=30) == 0
    assert sha256sum_accepts(tree.parent / "out/digest_tree.sha256", tree.parent) == 300
    process.stderr.close()


def test_digest_tree_shows_one_live_line_on_a_terminal_only(mountain: Path, tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [*DIGEST_TREE, str(mountain), "--seconds", "1", "--producers", "20"],
        cwd=tmp_path,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "200"},
        stdout=subprocess.PIPE,
        stderr=theirs,
        text=True,
    )
    os.close(theirs)
    out, _ = process.communicate(timeout=30)
    shown = os.read(ours, 1 << 16).decode()
    os.close(ours)
    assert "\x1b" not in out
    assert "\n" not in shown
    assert re.search(r"\r\x1b\[K[\d,]+ files, .*in flight .*backlog .*RSS .*ETA \d+:\d\d", shown)


def test_compare_shows_that_the_standard_executor_dies_of_the_cap(
    mountain: Path, tmp_path: Path
) -> None:
    options = ["--limit", "400", "--producers", "20", "--cap", "128M", "--plot", "none"]
    finished = run("digest_tree.py", mountain, "--compare", *options, cwd=tmp_path)
    assert finished.returncode == 0, finished.stderr
    assert "Traceback" not in finished.stderr + finished.stdout
    table = rows(finished)
    assert table["ended"][0] == "finished"
    assert table["ended"][1].startswith(("died: out of memory", "out of memory, and hung"))
    assert table["files digested"][0] == "400"
    weir = float(table["peak RSS: parent"][0].split()[0])
    assert weir < 64  # half of the cap; the other one may have died before it was looked at


def test_compare_draws_a_chart_or_says_what_is_missing(tree: Path) -> None:
    finished = run("digest_tree.py", tree, "--compare", "--plot", "out/c.png", cwd=tree.parent)
    if importlib.util.find_spec("matplotlib") is None:
        assert finished.returncode == 2
        assert "matplotlib, which is not installed" in finished.stderr
    else:
        assert finished.returncode == 0, finished.stderr
        assert (tree.parent / "out/c.png").read_bytes().startswith(b"\x89PNG")
        assert rows(finished)["ended"] == ["finished", "finished"]


# ---- scenarios ----------------------------------------------------------------------------------


def scenario(program: str, *args: str | Path) -> Finished:
    finished = run(program, *args)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert re.search(r"^law: .*: holds$", finished.stdout, re.MULTILINE)
    assert "BROKEN" not in finished.stdout
    return finished


def test_many_producers_keeps_every_object_with_every_backlog() -> None:
    finished = scenario("many_producers.py", "--speed", "100", "--objects", "100")
    assert "law: 700 objects = 700 done: holds" in finished.stdout
    table = rows(finished)
    assert set(table) >= {"1", "8", "True", "16", "24", "32", "None"}


def test_bounded_window_never_has_more_than_its_window_pending() -> None:
    table = rows(scenario("bounded_window.py", "--items", "1000", "--speed", "20"))
    for name in ("by hand", "weir map"):
        _, most_pending, right = table[name]
        assert int(most_pending) <= 50
        assert right == "yes"


def test_submit_window_never_has_more_than_its_window_pending() -> None:
    table = rows(scenario("submit_window.py", "--items", "300", "--speed", "20"))
    for name in ("by hand", "amap", "amap, process pool", "ProcessPoolExecutor.map"):
        _, most_pending, right, left = table[name]
        assert int(most_pending) <= 50
        assert (right, left) == ("yes", "0")


def test_slow_upload_reads_at_the_speed_of_the_upload() -> None:
    table = rows(scenario("slow_upload.py", "--size", "16", "--speed", "10"))
    in_chunks, at_once = table["copy, 8,192 bytes at a time"], table["write(read_bytes())"]
    assert float(in_chunks[2].removesuffix(" KiB").replace(",", "")) <= 1024
    assert at_once[2] == "16,384 KiB"
    assert float(in_chunks[3].split()[0]) < 4 < 16 <= float(at_once[3].split()[0])


def test_pull_stream_is_never_ahead_by_more_than_the_demand() -> None:
    finished = scenario("pull_stream.py", "--speed", "20")
    assert rows(finished)["for"] == rows(finished)["async for"] == ["10", "2"]
    assert "law: 20 made = 20 used: holds" in finished.stdout
    assert "    source: 4\nsubscriber: [3, 4]\n    source: 5" in finished.stdout


def test_big_file_needs_a_chunk_of_memory_and_not_the_file() -> None:
    table = rows(scenario("big_file.py", "--file", "64", "--limit", "32"))
    assert table["read_bytes()"] == ["out of memory"]
    for size in ("8 KiB", "64 KiB", "1 MiB"):
        _, _, grown, right = table[size]
        assert float(grown.split()[0]) < 16
        assert right == "yes"


def test_short_tasks_gives_every_result_with_every_chunk_size() -> None:
    finished = scenario("short_tasks.py", "--tasks", "1000", "--rounds", "1")
    assert "law: 7,000 tasks = 7,000 right results: holds" in finished.stdout
    assert "weir, auto" in rows(finished)


def test_large_objects_gives_every_array_back() -> None:
    finished = scenario("large_objects.py", "--largest", "1", "--rounds", "2")
    assert "law: 20 checks = 20 right: holds" in finished.stdout
    assert "64 KiB" in finished.stdout
    assert "1 MiB" in finished.stdout


def test_slow_consumer_holds_the_producer_to_ten_items() -> None:
    table = rows(scenario("slow_consumer.py", "--speed", "50"))
    assert int(table["weir.Queue(10)"][1]) <= 10
    assert int(table["queue.Queue()"][1]) > 500


def test_keep_newest_uses_the_last_reading_and_logs_each_drop() -> None:
    finished = scenario("keep_newest.py", "--speed", "10")
    assert "the last reading, 20, arrived" in finished.stdout
    law = re.search(r"law: 20 measured = (\d+) used \+ (\d+) dropped: holds", finished.stdout)
    assert law
    assert int(law[2]) > 0
    assert finished.stdout.count("s  dropped reading") == int(law[2])


def test_spill_loses_nothing_to_a_kill_and_little_comes_twice() -> None:
    finished = scenario("spill.py", "--speed", "10")
    assert re.search(r"law: [\d,]+ readings sent = [\d,]+ used: holds", finished.stdout)
    counts = re.search(r"([\d,]+) readings used before .* (\d+) twice", finished.stdout)
    assert counts
    assert int(counts[1].replace(",", "")) >= 1000
    assert int(counts[2]) <= 64 + 1
    depths = re.findall(r"(\d+) in memory", finished.stdout)
    assert depths and max(map(int, depths)) <= 50


def test_killed_workers_lose_no_more_than_they_held() -> None:
    finished = scenario("killed_workers.py", "--speed", "2")
    killed = re.search(r"^(\d+) workers were killed", finished.stdout)
    assert killed
    assert int(killed[1]) > 3
    assert "0 results are wrong" in finished.stdout


def test_strategies_shows_three_outcomes() -> None:
    table = rows(scenario("strategies.py", "--speed", "5"))
    assert table["block"][1:3] == ["10", "0"]
    assert table["block"][3] == "1 2 3 4 5 6 7 8 9 10"
    for name in ("drop_newest", "drop_oldest"):
        assert int(table[name][1]) + int(table[name][2]) == 10
        assert int(table[name][2]) > 0
    assert "10" in table["drop_oldest"][3].split()


def test_choose_by_use_case_shows_what_each_sets_and_does() -> None:
    finished = scenario("choose_by_use_case.py", "--speed", "5")
    table = rows(finished)
    assert "rate      100 per second" in finished.stdout
    assert table["real_time"][3:5] == ["0", "0"]
    assert int(table["real_time"][2]) > 0
    for name in ("critical", "batch"):
        assert table[name][1:5] == ["200", "0", "0", "0"]
    full, told = map(int, table["user_facing"][3:5])
    assert full > 0 and told > full, "most are told before they try"


def test_put_timeout_drops_clicks_and_never_an_order() -> None:
    finished = scenario("put_timeout.py", "--speed", "20")
    table = rows(finished)
    assert table["orders"][:3] == ["6", "0", "6"]
    assert int(table["clicks"][1]) > 0
    assert finished.stdout.count("dropped click") == int(table["clicks"][1])


def test_breaker_timeline_spares_a_backend_that_is_down(tmp_path: Path) -> None:
    args: list[str | Path] = ["--speed", "3"]
    plot = tmp_path / "out.svg"
    if importlib.util.find_spec("matplotlib") is not None:
        args += ["--plot", plot]
    finished = scenario("breaker_timeline.py", *args)
    table = rows(finished)
    assert int(table["without"][2]) == 0
    assert int(table["with breaker"][2]) > 0  # rejected at once
    assert int(table["with breaker"][1]) < int(table["without"][1])
    for name in ("open", "half_open", "closed"):
        assert re.search(rf"^ +[\d.]+ s  {name}$", finished.stdout, re.MULTILINE)
    assert table["35 - 40 s"][1] == "0"  # the retries keep it down
    assert table["35 - 40 s"][2:] == ["80", "80"]  # with a budget they do not
    assert len(args) == 2 or plot.read_text().startswith("<?xml")


def test_adaptive_limit_finds_each_capacity() -> None:
    table = rows(scenario("adaptive_limit.py"))
    for name in ("AIMD, refusals", "AIMD, timeout", "Vegas", "Gradient2"):
        cells = table[name]
        for at, servers in ((0, 40), (3, 20), (6, 40)):
            limit, latency, found = cells[at : at + 3]
            assert abs(float(limit) - servers) <= 0.1 * servers, (name, cells)
            assert float(latency) < 20
            assert float(found.removesuffix(" s")) <= 5
    assert table["AIMD, neither"][2] == "never"


def test_throttled_requests_are_as_many_at_a_time_as_allowed() -> None:
    table = rows(scenario("throttled_requests.py", "--speed", "2"))
    for how in ("threads", "asyncio"):
        for limit in ("3", "10"):
            assert table[f"{how}, {limit} at a time"][:4] == [limit, limit, "24", "0"]
    one_fails = [int(cell) for cell in table["asyncio, one fails"]]
    assert one_fails[1] == 3
    assert one_fails[3] == 1
    assert one_fails[2] + one_fails[3] + one_fails[4] == 24
    assert one_fails[4] >= 12


def test_slow_clients_are_bounded_each_and_in_all() -> None:
    small = ("--clients", "60", "--stalled", "4", "--download", "512", "--cap", "16")
    finished = scenario("slow_clients.py", "--speed", "10", "--total", "1024", *small)
    plain, flow = (rows(finished)[name] for name in ("writer.write", "FlowWriter"))
    assert int(plain[0].split()[0].replace(",", "")) > 64
    assert float(plain[1].split()[0]) > 10
    assert int(flow[0].split()[0]) <= 64
    assert float(flow[1].split()[0]) <= 1.0
    assert flow[3:] == ["56", "4"]
    assert finished.stdout.count(": holds") == 2


def test_token_bucket_gives_five_at_once_and_then_one_every_half_second() -> None:
    finished = scenario("token_bucket.py", "--speed", "20")
    table = rows(finished)
    started = [float(table[str(n)][0].split()[0]) for n in range(1, 21)]
    for n, at in enumerate(started, 1):  # on a busy machine later, but never earlier
        assert at >= (n - 5) * 0.5 - 0.01
    assert "not possible in less than 7.50 s" in finished.stdout


def test_token_bucket_draws_bursts_or_says_what_is_missing(tmp_path: Path) -> None:
    plot = tmp_path / "bursts.svg"
    finished = run("token_bucket.py", "--speed", "20", "--plot", plot)
    if importlib.util.find_spec("matplotlib") is None:
        assert finished.returncode == 2
        assert "matplotlib, which is not installed" in finished.stderr
    else:
        assert finished.returncode == 0, finished.stderr
        assert plot.read_bytes().startswith(b"<?xml")


def test_leaking_worker_is_replaced_by_size_and_by_count() -> None:
    finished = scenario("leaking_worker.py", "--tasks", "40")
    assert "law: 80 tasks = 40 done in the first pool + 40 in the second" in finished.stdout


def test_memory_governor_kills_nobody_where_without_it_some_are_killed() -> None:
    options = "--memory 600 --size 200 --jobs 6 --workers 4 --seconds 0.1".split()
    finished = run("memory_governor.py", *options)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    rows = [line.split() for line in finished.stdout.splitlines() if "workers" in line]
    killed = [int(row[-5]) for row in rows]
    assert killed[:3] == [0, 0, 0]
    assert killed[3] > 0


def test_submit_data_bounds_its_queue_and_loses_nothing_it_accepted() -> None:
    finished = scenario("submit_data.py", "--speed", "20")
    table = rows(finished)
    low, high = map(int, table["queue, as answers say"][0].split(" - "))
    assert 0 <= low < high <= 50
    assert int(table["Retry-After"][0].split(" - ")[0]) >= 1
    assert int(table["stop"][0].split()[0]) > 0  # there was something to lose
    assert "refused (queue full)" in finished.stdout
    assert "; 0 of them were lost" in finished.stdout


@pytest.mark.slow
def test_load_shed_keeps_its_goodput_where_without_it_there_is_none() -> None:
    finished = run("load_shed.py", "--seconds", "2", "--stall", "0.5")
    if shutil.which("wrk") is None:
        assert (finished.returncode, "wrk: apt install wrk" in finished.stderr) == (2, True)
        return
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert finished.stdout.count("law: ") == finished.stdout.count(": holds") == 3
    assert ", 0 without an answer" in finished.stdout
    goodput = {name: float(cells[2]) for name, cells in rows(finished).items() if len(cells) > 8}
    assert goodput["without"] < goodput["LoadShed(app)"]
    assert goodput["without"] < goodput["LoadShed(app, limit=5)"]


def test_monitor_names_what_is_the_matter_and_says_when_it_is_over(tmp_path: Path) -> None:
    args: list[str | Path] = ["--speed", "12"]
    plot = tmp_path / "shop.png"
    if importlib.util.find_spec("matplotlib") is not None:
        args += ["--plot", plot]
    finished = scenario("monitor.py", *args)
    for issue in ("queue_high", "slow_service", "backpressure", "low_throughput"):
        assert re.search(rf"^ +[\d.]+ s  {issue}: ", finished.stdout, re.M), issue
        assert re.search(rf"^ +[\d.]+ s  {issue} is over after \d+ s$", finished.stdout, re.M), (
            issue
        )
    assert "stage 'shop/store' is the bottleneck" in finished.stdout
    assert len(args) == 2 or plot.read_bytes().startswith(b"\x89PNG")


def test_alert_comes_before_the_trouble() -> None:
    finished = scenario("alert.py", "--speed", "20")
    assert finished.stdout.count("ALERT: queue 'jobs' is 80 % full for 30 s") == 1
    assert "over: queue 'jobs' is 80 % full for 30 s" in finished.stdout
    assert "ALERT: this process has more than 70 % of the 128 MiB" in finished.stdout


# ---- pipelines ----------------------------------------------------------------------------------


@pytest.mark.parametrize("overflow", ["block", "drop"])
def test_ingest_process_output_names_its_bottleneck_and_loses_nothing_uncounted(
    overflow: str,
) -> None:
    finished = scenario(
        "ingest_process_output.py", "--speed", "20", "--items", "300", "--overflow", overflow
    )
    table = rows(finished)
    assert "stage 'process' is the bottleneck" in finished.stdout
    came = {stage: int(table[stage][0]) for stage in ("ingest", "process", "output")}
    dropped = {stage: int(table[stage][3]) for stage in came}
    assert (dropped["process"] > 0) == (overflow == "drop")
    assert came["ingest"] == 300
    assert came["process"] == 300 - dropped["ingest"]  # which drops too while the CPU is elsewhere
    assert came["output"] == came["process"] - dropped["process"]


def test_ingest_process_output_warns_and_empties_its_queues_at_the_first_ctrl_c() -> None:
    command = [sys.executable, str(EXAMPLES / "ingest_process_output.py"), "--speed", "5"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as program:
        assert program.stdout is not None
        seen = ""
        while "warning: 'ingest' has its buffer" not in seen:
            line = program.stdout.readline()
            assert line, seen
            seen += line
        program.send_signal(signal.SIGINT)
        seen += program.stdout.read()
        assert program.wait(30) == 0
    assert re.search(r"pipeline 'manual pages' drained after", seen)
    law = re.search(r"law: (\d+) read = (\d+) written \+ 0 failed \+ 0 left: holds", seen)
    assert law and 0 < int(law[1]) < 500


def test_feeder_stores_each_item_once_and_counts_retries() -> None:
    finished = scenario("feeder.py", "--speed", "20")
    refused, made_again = re.findall(
        r"^(\d+) of \d+ calls were refused, (\d+)", finished.stdout, re.M
    )[0]
    assert refused == made_again != "0"


def test_autoscale_follows_the_load() -> None:
    finished = scenario("autoscale.py", "--phase", "2")
    table = rows(finished)
    most = int(table["2 s"][2].split("-")[1])
    assert most >= 4, "the load has tripled"


def test_queue_sizes_shows_what_too_small_and_too_large_cost() -> None:
    table = rows(scenario("queue_sizes.py", "--speed", "8"))
    sizes = {size: cells for size, cells in table.items() if cells and cells[0].endswith("/s")}
    idle = {size: int(cells[1].rstrip("%")) for size, cells in sizes.items()}
    assert idle["1"] > idle["200"]
    wait = {size: float(cells[2].split()[0]) for size, cells in sizes.items()}
    assert wait["1"] < wait["10,000"]
    assert any(size.startswith("auto") for size in table)


def test_sample_list_does_each_sample_once_through_refusals_and_a_kill() -> None:
    weir_command()
    finished = scenario(
        "sample_list.py", "--items", "200", "--limit", "10", "--jobs", "40", "--speed", "4"
    )
    table = rows(finished)
    submitted, refused, *ends = (cell.replace(",", "") for cell in table["weir run -j40"][:5])
    assert int(refused) > 0 and int(submitted) == 200 + int(refused)
    assert ends == ["200", "0", "0"], finished.stdout
    assert int(table["xargs -P40"][4]) > 0, "nobody was refused"
    assert "killed with SIGKILL" in finished.stdout


def test_every_example_is_in_the_readme() -> None:
    readme = (EXAMPLES / "README.md").read_text()
    for program in EXAMPLES.glob("*.py"):
        assert program.name in readme
