"""The checkers catch what they are for: each test plants one violation in a small tree."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.house


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, stdin=subprocess.DEVNULL
    )


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


# ---- rules -----------------------------------------------------------------------------------

RULES = {
    "docs/design.md": "# Design\n\n## Queue\n",
    "include/weir/queue.h": "",
    "docs/rules.md": """## Q

Tests: `python/tests/test_rules_queue.py`.

| face | object |
|---|---|
| `c`, `threads` | a queue |

| rule | | from | not asked of |
|---|---|---|---|
| Q01 | Nothing is lost. | Queue | |
| Q02 | It has a repr. | `weir/queue.h` | `c`: it has none |
""",
    "python/tests/rules_queues.py": 'QUEUES: dict = {"c": 1, "threads": 2}\n',
    "python/tests/test_rules_queue.py": """
@rule()
def test_q01_nothing_is_lost():
    \"\"\"Nothing is
    lost.\"\"\"

@rule(c="it has none")
def test_q02_it_has_a_repr():
    \"\"\"It has a repr.\"\"\"
""",
}

PLANTED_RULES = [
    ("docs/rules.md", "| Q02 | It has a repr.", "| Q03 | It has a repr.", "Q03 has no test"),
    ("docs/rules.md", "| Q02 | It has a repr.", "| Q03 | It has a repr.", "Q02 is not in docs"),
    ("docs/rules.md", "Nothing is lost", "Little is lost", "says 'Nothing is lost.'"),
    ("docs/rules.md", "`c`: it has none", "", "is not asked of ['c'] by its test"),
    ("docs/rules.md", "| Queue |", "| Stack |", "from 'Stack', which design.md has not"),
    ("docs/rules.md", "`weir/queue.h`", "`weir/stack.h`", "from '`weir/stack.h`'"),
    ("docs/rules.md", "| Q02 |", "| Q01 |", "there is another rule Q01"),
    ("python/tests/rules_queues.py", '"c": 1', '"c": 1, "asyncio": 3', "the face 'asyncio'"),
    ("python/tests/test_rules_queue.py", "test_q01_", "test_q04_", "Q04 is not in docs"),
]


def test_rules_that_agree_are_accepted(tmp_path: Path) -> None:
    for name, text in RULES.items():
        write(tmp_path / name, text)
    done = run(ROOT / "scripts/check_rules", tmp_path)
    assert (done.returncode, done.stdout) == (
        0,
        "rules: the document and the tests agree on 2 rules\n",
    )


@pytest.mark.parametrize(("file", "old", "new", "sentence"), PLANTED_RULES)
def test_rules_that_differ_are_told(
    tmp_path: Path, file: str, old: str, new: str, sentence: str
) -> None:
    for name, text in RULES.items():
        write(tmp_path / name, text.replace(old, new) if name == file else text)
    done = run(ROOT / "scripts/check_rules", tmp_path)
    assert done.returncode == 1
    assert sentence in done.stdout


# ---- layers ----------------------------------------------------------------------------------

LAYERED = {
    "include/weir/base.h": "#include <stddef.h>\n",
    "include/weir/queue.h": "#include <weir/base.h>\n",
    "src/base/park.h": "#include <linux/futex.h>\n",
    "src/base/park.c": '#include "base/park.h"\n#include <sys/syscall.h>\n#include <stdatomic.h>\n',
    "src/model/ring.h": "#include <weir/base.h>\n#include <stdint.h>\n",
    "src/base/alloc.h": "#include <stddef.h>\n",
    "src/model/ring.c": '#include "model/ring.h"\n#include "base/alloc.h"\n#include <string.h>\n',
    "src/flow/queue.c": '#include <weir/queue.h>\n#include "base/park.h"\n',
    "src/flow/queue.h": '#include "model/ring.h"\n',
    "src/exec/pool.h": '#include "flow/queue.h"\n#include <pthread.h>\n',
    "src/observe/page.h": '#include "base/park.h"\n',
    "python/ext/module.h": "#include <Python.h>\n",
    "python/ext/module.c": '#include "module.h"\n#include <weir/queue.h>\n',
    "cli/main.c": "#include <weir/queue.h>\n#include <uv.h>\n",
    "tests/contract/queue.c": "#include <weir/queue.h>\n#include <cmocka.h>\n",
    "tests/unit/ring.c": '#include "model/ring.h"\n#include <cmocka.h>\n',
}

PLANTED_INCLUDES = [
    ("src/base/park.c", '#include "model/ring.h"', "base must not include model"),
    ("src/base/park.c", "#include <weir/queue.h>", "base must not include <weir/queue.h>"),
    ("src/base/park.c", "#include <uv.h>", "libc and the kernel"),
    ("src/base/park.c", '#include "park.h"', "not written relative to src"),
    ("src/model/ring.c", '#include "base/park.h"', "model must not include base"),
    ("src/model/ring.c", '#include "flow/queue.h"', "model must not include flow"),
    ("src/model/ring.c", "#include <weir/queue.h>", "model must not include <weir/queue.h>"),
    ("src/model/ring.c", "#include <pthread.h>", "model has no thread"),
    ("src/model/ring.c", "#include <time.h>", "model has no thread, no clock"),
    ("src/model/ring.c", "#include <unistd.h>", "model has no thread"),
    ("src/model/ring.c", "#include <stdatomic.h>", "model has no thread"),
    ("src/model/ring.c", "  #  include <sys/mman.h>", "model has no thread"),
    ("src/flow/queue.c", '#include "exec/pool.h"', "flow must not include exec"),
    ("src/flow/queue.c", "#include <weir/none.h>", "there is no public header"),
    ("src/exec/pool.h", '#include "observe/page.h"', "exec must not include observe"),
    ("src/observe/page.h", '#include "flow/queue.h"', "observe must not include flow"),
    ("src/observe/page.h", '#include "../flow/queue.h"', "not written relative to src"),
    ("src/misc/thing.c", "#include <stdio.h>", "in none of the layers"),
    ("python/ext/module.c", '#include "../../src/flow/queue.h"', "as a stranger would"),
    ("python/ext/module.c", '#include "flow/queue.h"', "as a stranger would"),
    ("cli/main.c", "#include <flow/queue.h>", "as a stranger would"),
    ("bench/queue.c", '#include "../src/model/ring.h"', "as a stranger would"),
    ("bench/c/queue.cpp", "#include <model/ring.h>", "as a stranger would"),
    ("bench/c/load.h", '#include "flow/queue.h"', "as a stranger would"),
    ("examples/c/a.c", '#include "model/ring.h"', "as a stranger would"),
    ("tests/contract/queue.c", '#include "base/park.h"', "as a stranger would"),
    ("tests/unit/ring.c", '#include "../../src/model/ring.h"', "not written relative"),
    ("include/weir/queue.h", "#include <stdatomic.h>", "plain libc types"),
    ("include/weir/queue.h", '#include "base.h"', "a public header includes <weir/...>"),
]


@pytest.fixture
def layered(tmp_path: Path) -> Path:
    for name, text in LAYERED.items():
        write(tmp_path / name, text)
    return tmp_path


def test_the_layer_checker_passes_a_tree_that_follows_the_order(layered: Path) -> None:
    checked = run(sys.executable, ROOT / "scripts/check_layers", layered)
    assert (checked.returncode, checked.stderr) == (0, ""), checked.stdout


@pytest.mark.parametrize(("file", "line", "sentence"), PLANTED_INCLUDES)
def test_the_layer_checker_catches_a_planted_include(
    layered: Path, file: str, line: str, sentence: str
) -> None:
    path = layered / file
    before = path.read_text() if path.exists() else ""
    write(path, f"{before}/* one\n * two */\n{line}\n")
    checked = run(sys.executable, ROOT / "scripts/check_layers", layered)
    assert checked.returncode == 1
    (said,) = [text for text in checked.stdout.splitlines() if sentence in text]
    planted_at = 1 if "in none of the layers" in sentence else before.count("\n") + 3
    assert said.startswith(f"{file}:{planted_at}: ")


def test_the_layer_checker_reads_no_comments(layered: Path) -> None:
    write(layered / "src/model/ring.c", '/*\n#include <pthread.h>\n*/\n#include "model/ring.h"\n')
    assert run(sys.executable, ROOT / "scripts/check_layers", layered).returncode == 0


def test_the_layers_of_weir_follow_the_order() -> None:
    checked = run(sys.executable, ROOT / "scripts/check_layers")
    assert checked.returncode == 0, checked.stdout


# ---- symbols ---------------------------------------------------------------------------------

HEADER = """
#define WEIR_API __attribute__((visibility("default")))
/* WEIR_API int weir_in_a_comment(void); */
typedef void weir_drop_fn(void *item, void *ctx);
WEIR_API int weir_put(void *item,
                      weir_drop_fn *on_drop);
WEIR_API const char *weir_name(int);
"""
SOURCE = """
#include <weir/base.h>
int weir_put(void *item, weir_drop_fn *on_drop) { (void)item; (void)on_drop; return 0; }
const char *weir_name(int n) { (void)n; return ""; }
"""
MAP = "WEIR_0 {\nglobal:\n    weir_name;\n    weir_put;\nlocal:\n    *;\n};\n"


def symbols(root: Path, header: str, source: str, exports: str) -> tuple[int, str]:
    """Builds a library from the three texts and checks it."""
    write(root / "include/weir/base.h", header)
    write(root / "src/libweir.map", exports)
    write(root / "a.c", source)
    built = run(
        "cc", "-shared", "-fPIC", "-fvisibility=hidden", "-I", root / "include", root / "a.c",
        f"-Wl,--version-script={root}/src/libweir.map", "-o", root / "libweir.so",
    )  # fmt: skip
    assert built.returncode == 0, built.stderr
    checked = run(
        sys.executable, ROOT / "scripts/check_symbols", "--root", root,
        "--library", root / "libweir.so",
    )  # fmt: skip
    assert not checked.stderr, checked.stderr
    return checked.returncode, checked.stdout


def test_the_symbol_checker_passes_three_lists_that_agree(tmp_path: Path) -> None:
    status, said = symbols(tmp_path, HEADER, SOURCE, MAP)
    assert (status, said) == (0, "symbols: 2, the same in headers, map and library\n")


@pytest.mark.parametrize(
    ("header", "source", "exports", "sentence"),
    [
        (HEADER + "WEIR_API void weir_new(void);", SOURCE, MAP, "weir_new is declared in"),
        (HEADER, SOURCE, MAP.replace("    weir_put;\n", ""), "weir_put is declared in"),
        (HEADER, SOURCE, MAP.replace("weir_put;", "weir_put; weir_gone;"), "weir_gone is listed"),
        (
            HEADER,
            SOURCE + '__attribute__((visibility("default"))) int weir__internal;',
            MAP.replace("weir_put;", "weir_*;"),
            "weir__internal is exported and no header declares it",
        ),
        (
            HEADER + "int weir_forgotten(void);",
            SOURCE,
            MAP,
            "weir_forgotten is declared without WEIR_API",
        ),
        (
            HEADER + "struct weir_open { _Atomic int n; };",
            SOURCE,
            MAP,
            "a public header shows an atomic",
        ),
    ],
)
def test_the_symbol_checker_catches_a_planted_difference(
    tmp_path: Path, header: str, source: str, exports: str, sentence: str
) -> None:
    status, said = symbols(tmp_path, header, source, exports)
    assert status == 1
    assert sentence in said


def test_the_map_can_be_written_from_the_headers(tmp_path: Path) -> None:
    write(tmp_path / "include/weir/base.h", HEADER)
    write(tmp_path / "src/libweir.map", "WEIR_0 {\nglobal:\n    weir_gone;\nlocal:\n    *;\n};\n")
    run(sys.executable, ROOT / "scripts/check_symbols", "--root", tmp_path, "--update")
    assert (tmp_path / "src/libweir.map").read_text() == MAP


# ---- headers ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("#pragma once\nsize_t weir_n(void);\n", "does not compile alone as C11"),
        ("#pragma once\nint weir_new(int new);\n", "does not compile alone as C++17"),
        ("#pragma once\nint weir_put();\n#include <nothing_here.h>\n", "does not compile alone"),
        ("int weir_twice = 0;\n", "does not compile alone"),
        (
            "#pragma once\ntypedef struct weir_o { int size, n; } weir_o;\n"
            "#define WEIR_O_INIT {sizeof(weir_gone)}\n",
            "does not compile alone",
        ),
    ],
)
def test_the_header_checker_catches_a_header_that_does_not_stand_alone(
    tmp_path: Path, text: str, sentence: str
) -> None:
    write(tmp_path / "include/weir/one.h", text)
    checked = run(sys.executable, ROOT / "scripts/check_headers", tmp_path)
    assert checked.returncode == 1
    assert f"include/weir/one.h:1: {sentence}" in checked.stdout


def test_the_header_checker_passes_a_header_that_stands_alone(tmp_path: Path) -> None:
    write(
        tmp_path / "include/weir/one.h", "#pragma once\n#include <stddef.h>\nsize_t weir_n(int);\n"
    )
    checked = run(sys.executable, ROOT / "scripts/check_headers", tmp_path)
    assert checked.returncode == 0, checked.stdout


# ---- manual pages ----------------------------------------------------------------------------

PAGE = """.Dd January 1, 2026
.Dt WEIR_PUT 3
.Os
.Sh NAME
.Nm weir_put ,
.Nm weir_name
.Nd put one
.Sh SYNOPSIS
.In weir/base.h
.Sh DESCRIPTION
Puts.
.Sh OWNERSHIP
The caller's.
.Sh THREADS
Any.
.Sh RETURN VALUE
Zero.
.Sh EXAMPLE
.Bd -literal
#include <stdio.h>

int main(void)
{
    printf("\\en");
    return 0;
}
.Ed
.Sh SEE ALSO
.Xr weir 3
"""


def manual(root: Path, page: str) -> tuple[int, str]:
    """Checks a tree of one page, with a pkg-config file that needs no library."""
    write(root / "include/weir/base.h", HEADER)
    write(root / "docs/man/weir_put.3", page)
    write(
        root / "prefix/lib/pkgconfig/weir.pc",
        "Name: weir\nDescription: none\nVersion: 0\nCflags:\nLibs:\n",
    )
    checked = run(
        sys.executable, ROOT / "scripts/check_man", "--root", root, "--prefix", root / "prefix"
    )
    assert not checked.stderr, checked.stderr
    return checked.returncode, checked.stdout


needs_mandoc = pytest.mark.skipif(not shutil.which("mandoc"), reason="mandoc is not installed")


@needs_mandoc
def test_the_manual_checker_passes_a_page_that_is_whole(tmp_path: Path) -> None:
    assert manual(tmp_path, PAGE) == (0, "manual: 1 pages, every example ran\n")


@needs_mandoc
@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        (".Sh THREADS\nAny.\n", "", "there is no section THREADS"),
        (".Nm weir_name\n", ".Nm weir_nama\n", "weir_name has no manual page that names it"),
        ("Puts.\n", ".Bogus Puts.\n", "Bogus"),
        ("return 0;", "return 3;", "weir_put.3:20: the example exits 3"),
        ("return 0;", "return nothing;", "weir_put.3:20: the example does not compile"),
        ("int main(void)", "static int example(void)", "an example is a whole program"),
    ],
)
def test_the_manual_checker_catches_a_planted_fault(
    tmp_path: Path, old: str, new: str, sentence: str
) -> None:
    status, said = manual(tmp_path, PAGE.replace(old, new))
    assert status == 1
    assert sentence in said


# ---- the house itself ------------------------------------------------------------------------


def test_every_source_is_listed_in_a_meson_build() -> None:
    listed = {
        str((file.parent / name).resolve().relative_to(ROOT))
        for file in (
            ROOT / "meson.build",
            *ROOT.glob("[!.b]*/**/meson.build"),
            *ROOT.glob("bench/**/meson.build"),
        )
        for name in re.findall(
            r"'([\w./-]+\.(?:c|cpp|go|h|py|pyi|typed|[1357]))'", file.read_text()
        )
    }
    tests = {
        f"tests/{suite}/{name}.c"
        for suite, names in re.findall(
            r"(\w+)_tests = \[(.*?)\]", (ROOT / "tests/meson.build").read_text(), flags=re.S
        )
        for name in re.findall(r"'([\w-]+)'", names)
    }
    fuzzers = {
        f"tests/fuzz/{name}.c"
        for name in re.findall(r"'(\w+)'", (ROOT / "tests/fuzz/meson.build").read_text())
    }
    examples = {
        f"examples/c/{name}.c"
        for name in re.findall(r"'(\w+)'", (ROOT / "examples/c/meson.build").read_text())
    }
    there = {
        str(path.relative_to(ROOT))
        for pattern in (
            "include/weir/*.h", "src/**/*.c", "python/ext/*.c", "python/weir/**/*.py",
            "python/weir/**/*.pyi", "python/weir/py.typed", "docs/man/*.[1357]",
            "examples/c/*.c", "tests/*/*.c", "tests/*/*.cpp", "bench/c/*.c", "bench/c/*.cpp",
            "bench/c/*.go",
        )
        for path in ROOT.glob(pattern)
    }  # fmt: skip
    assert there - listed - tests - examples - fuzzers == set()


def test_an_unknown_step_of_check_is_refused_by_name() -> None:
    refused = run(ROOT / "scripts/check", "nonsense")
    assert refused.returncode == 2
    assert 'there is no step "nonsense"' in refused.stderr


def fake_system(root: Path, python: str) -> dict[str, str]:
    """A PATH on which apt-get and sudo fail and the compiler is missing."""
    commands = root / "bin"
    for name in ("sh", "uname", "dirname", "cat", "id", "sed", "tail", "mktemp", "rm", "env"):
        found = shutil.which(name)
        assert found
        commands.mkdir(exist_ok=True)
        (commands / name).symlink_to(found)
    write(commands / "apt-get", "#!/bin/sh\necho 'E: there is no network' >&2\nexit 100\n")
    write(commands / "sudo", "#!/bin/sh\nexit 1\n")
    for name in ("apt-get", "sudo"):
        (commands / name).chmod(0o755)
    return {"PATH": str(commands), "PYTHON": python, "HOME": str(root)}


def test_setup_says_one_sentence_for_each_package_it_cannot_install(tmp_path: Path) -> None:
    write(tmp_path / "scripts/setup", (ROOT / "scripts/setup").read_text())
    done = subprocess.run(
        ["/bin/sh", str(tmp_path / "scripts/setup"), "build", "check"],
        env=fake_system(tmp_path, sys.executable),
        capture_output=True, text=True, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode == 1
    said = [line for line in done.stderr.splitlines() if "is missing" in line]
    named = [match[1] for line in said if (match := re.search(r"package (\S+) is missing", line))]
    assert len(named) == len(said) == len(set(named))
    assert {"build-essential", "mandoc", "pkg-config"} <= set(named)
    assert not (tmp_path / ".venv").exists()


def test_setup_names_the_peers_it_cannot_install_and_goes_on(tmp_path: Path) -> None:
    write(tmp_path / "scripts/setup", (ROOT / "scripts/setup").read_text())
    write(tmp_path / "scripts/requirements-build.txt", "# nothing\n")
    write(tmp_path / "scripts/requirements-bench.txt", "no-such-peer==1.0\nnor-this==2.0\n")
    commands = tmp_path / "bin"
    write(commands / "apt-get", "#!/bin/sh\necho 'E: there is no network' >&2\nexit 100\n")
    for name in ("sudo", "pkg-config"):  # without pkg-config nothing finds GLib
        write(commands / name, "#!/bin/sh\nexit 1\n")
    for command in commands.iterdir():
        command.chmod(0o755)
    environment = os.environ | {
        "PATH": f"{commands}:{os.environ['PATH']}",
        "PYTHON": os.path.realpath(sys.executable),
        "PIP_NO_INDEX": "1",
    }
    done = subprocess.run(
        ["/bin/sh", str(tmp_path / "scripts/setup"), "bench"],
        env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    said = [line for line in done.stderr.splitlines() if "is missing" in line]
    for peer in ("libglib2.0-dev", "no-such-peer==1.0", "nor-this==2.0"):
        assert len([line for line in said if f"package {peer} is missing" in line]) == 1, said
    assert not (tmp_path / ".venv/weir-bench.stamp").exists()  # so the next time it tries again
