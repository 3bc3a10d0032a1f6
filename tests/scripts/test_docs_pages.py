"""The documentation: pages of the README, the examples and the command line, no warning."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("mkdocs", reason="`make docs` brings mkdocs")
pytest.importorskip("griffe")

ROOT = Path(__file__).parents[2]
README = """# name

Before.

## Install

```sh
## no heading
make
```

## Big jobs

![plot](benchmarks/results/scale.png) and [the map](CONTRIBUTING.md#a-map)
"""


@pytest.fixture(autouse=True)
def hooks_on_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "scripts" / "docs"))


def test_a_comment_in_code_is_no_section() -> None:
    from pages import sections

    found = dict(sections(README))
    assert list(found) == ["", "Install", "Big jobs"]
    assert "## no heading\nmake" in found["Install"]


def test_cells_are_text_and_code() -> None:
    from pages import cells

    page = cells("# %% [markdown]\n# # Title\n#\n# Told.\n\n# %%\nx = 1  # one\n")
    assert page == "# Title\n\nTold.\n\n```python\nx = 1  # one\n```\n"


def test_links_lead_to_pages_and_to_copies() -> None:
    from pages import WHOLE, with_files

    files: set[str] = set()
    text = (
        "[a](CONTRIBUTING.md) ![b](benchmarks/results/scale.png) ![c](docs/page.png) "
        "[d](https://example.org/x.md) [e](#here)"
    )
    assert with_files("guide/x.md", text, WHOLE, files) == (
        "[a](../contributing.md) ![b](../files/benchmarks/results/scale.png) ![c](../page.png) "
        "[d](https://example.org/x.md) [e](#here)"
    )
    assert files == {"benchmarks/results/scale.png"}


def test_roles_are_links_where_the_name_is_known() -> None:
    import griffe
    from roles import linked

    module = griffe.visit("embedpress.a", Path("a.py"), "def b(): ...\nclass C:\n def d(self): ...")
    within = linked("see :func:`b`, :func:`~embedpress.x.y` and :func:`lost`", module["C"])
    assert 'identifier="embedpress.a.b" ' in within or 'identifier="embedpress.a.b">' in within
    assert 'identifier="embedpress.x.y"><code>y</code>' in within
    assert within.endswith("and `lost`")


def test_the_site_is_built_without_a_warning(tmp_path: Path) -> None:
    pytest.importorskip("material")
    pytest.importorskip("mkdocstrings_handlers.python")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "NO_MKDOCS_2_WARNING": "1"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    pages = {str(path.relative_to(tmp_path)): path.read_text() for path in tmp_path.rglob("*.html")}
    assert "recall@10" in pages["guide/what-is-kept.html"]
    assert "--target-recall" in pages["commands.html"]
    assert "load_compressor" in pages["api/compressor.html"]
    assert "recall_at_k" in pages["examples/text_search.html"]
    for name, page in pages.items():
        # Nothing is fetched from elsewhere; no role of Sphinx is left as it was.
        fetched = re.findall(r'<(?:script|img|iframe|link)[^>]+(?:src|href)="(https?:[^"]+)', page)
        assert fetched == [], name
        assert ":func:" not in page, name
