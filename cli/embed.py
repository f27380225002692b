"""embed.py - makes a C file of a file: embed.py INPUT OUTPUT NAME."""

from __future__ import annotations

import sys
from pathlib import Path

source, target, name = sys.argv[1:]
data = Path(source).read_bytes()
rows = (data[i : i + 16] for i in range(0, len(data), 16))
text = "\n".join("    " + " ".join(f"{byte}," for byte in row) for row in rows)
Path(target).write_text(
    f'#include "{name}.h"\n\nconst unsigned char {name}[] = {{\n{text}\n}};\n'
    f"const size_t {name}_size = sizeof {name};\n"
)
