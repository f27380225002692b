"""The programs on docs/pipelines.md run, one after the other, as a reader would type them."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

DOCS = Path(__file__).resolve().parents[2] / "docs"


def test_the_tutorial_of_pipelines_does_what_it_says(tmp_path: Path) -> None:
    text = (DOCS / "pipelines.md").read_text()
    blocks = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert len(blocks) >= 8
    program = tmp_path / "tutorial.py"
    program.write_text("\n".join(blocks))
    done = subprocess.run(
        [sys.executable, "-W", "error", str(program)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "stage 'process' is the bottleneck" in done.stdout


def test_pages_that_it_links_to_are_there() -> None:
    text = (DOCS / "pipelines.md").read_text()
    for link in re.findall(r"\]\(([^)#]+)\)", text):
        assert (DOCS / link).exists(), link
