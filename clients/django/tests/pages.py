"""The samples of docs/django.md, to be run as they are written."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs" / "django.md"


def _doc_blocks() -> Any:
    path = ROOT / "scripts" / "doc_blocks.py"
    spec = importlib.util.spec_from_file_location("doc_blocks", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def samples(heading: str, language: str = "python") -> list[str]:
    """The blocks of a language below a heading of the page."""
    return [
        block.text for block in _doc_blocks().blocks(PAGE, heading) if block.language == language
    ]


def run(text: str, **names: Any) -> dict[str, Any]:
    """What a sample defines, given the names that the page takes for known."""
    exec(compile(text, str(PAGE), "exec"), names)
    return names


def run_script(directory: Path, text: str, certificate: Path | None = None) -> Any:
    """What a script of JavaScript prints, as JSON; the Node.js is that of Playwright."""
    import playwright

    script = directory / "script.mjs"
    script.write_text(text)
    node = Path(playwright.__file__).parent / "driver" / "node"
    done = subprocess.run(
        [node, script],
        env={"NODE_EXTRA_CA_CERTS": str(certificate)} if certificate else {},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
