"""Pages of the documentation that are made of other files when it is built: a hook of mkdocs.

The README gives the home page and a guide for each of its sections, ``examples/`` a page a script,
the command line its reference. So none of them can be older than what it tells of.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[2]
HOME = ("Install",)
"""Sections of the README that stay on the home page."""
NO_GUIDE = ("Examples", "Developing")
WHOLE = {
    "CHANGELOG.md": "changes.md",
    "CONTRIBUTING.md": "contributing.md",
    "benchmarks/BILLION.md": "billion.md",
    "benchmarks/EQUAL_BYTES.md": "equal_bytes.md",
    "examples/README.md": "examples/index.md",
}
"""Files that are pages as they are."""
LINK = re.compile(r"(!?\[[^\]]*\])\(([^)\s]+)\)")
EXAMPLES = ("text_search", "image_search", "clustering", "production")


def slug(title: str) -> str:
    """A section's name in an address."""
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")


def sections(readme: str) -> Iterator[tuple[str, str]]:
    """The README's sections of the second level, by title; first what stands before them."""
    # A line that begins with ## within a block of code is no heading.
    parts = re.split(r"^## (.+)$", _with_hidden_code(readme), flags=re.MULTILINE)
    yield "", _shown(parts[0])
    for title, text in zip(parts[1::2], parts[2::2], strict=True):
        yield title, _shown(text)


def _with_hidden_code(text: str) -> str:
    return re.sub(r"```.*?```", lambda m: m[0].replace("\n#", "\n\0#"), text, flags=re.DOTALL)


def _shown(text: str) -> str:
    return text.replace("\0", "")


def cells(script: str) -> str:
    """A script of percent cells as Markdown."""
    page = []
    for cell in re.split(r"^# %%", script, flags=re.MULTILINE)[1:]:
        head, _, body = cell.partition("\n")
        if "[markdown]" in head:
            page.append(re.sub(r"^# ?", "", body.strip(), flags=re.MULTILINE))
        else:
            page.append(f"```python\n{body.strip()}\n```")
    return "\n\n".join(page) + "\n"


def with_files(
    page: str, text: str, pages: dict[str, str], files: set[str], folder: str = ""
) -> str:
    """A text with links to files of the repository led to their copies in the site.

    Parameters
    ----------
    page : str
        Address of the page, as in ``guide/serving.md``.
    text : str
    pages : dict of str to str
        Addresses of the pages that are made of files, by the file.
    files : set of str
        Files that the site has to hold; those found are added.
    folder : str
        Where the text's own links begin.
    """
    up = "../" * (len(PurePosixPath(page).parts) - 1)

    def led(match: re.Match[str]) -> str:
        label, target = match.groups()
        if "://" in target or target.startswith("#"):
            return match[0]
        path = str(PurePosixPath(folder) / target)
        if path in pages:
            return f"{label}({up}{pages[path]})"
        if not (ROOT / path).is_file():
            return match[0]
        if path.startswith("docs/"):
            return f"{label}({up}{path.removeprefix('docs/')})"
        files.add(path)
        return f"{label}({up}files/{path})"

    return LINK.sub(led, text)


def command_pages() -> str:
    """The reference of the command line, by typer."""
    command = [sys.executable, "-m", "typer", "embedpress.cli", "utils", "docs"]
    done = subprocess.run(
        [*command, "--name", "embedpress"], capture_output=True, text=True, check=True, cwd=ROOT
    )
    text = re.sub(r"^# .*$", "# Commands", done.stdout, count=1, flags=re.MULTILINE)
    # The page's table of contents lists the commands; typer's list cuts their lines short.
    return re.sub(r"\*\*Commands\*\*:\n\n(\* .*\n)+\n", "", text, count=1)


def made() -> tuple[dict[str, str], set[str]]:
    """All pages that are made, by their address, and the files that they show."""
    about = WHOLE | {f"examples/{name}.py": f"examples/{name}.md" for name in EXAMPLES}
    pages: dict[str, str] = {}
    files: set[str] = set()
    home = ""
    for title, text in sections((ROOT / "README.md").read_text("utf-8")):
        if not title:
            home += text
        elif title in HOME:
            home += f"## {title}\n{text}"
        elif title not in NO_GUIDE:
            page = f"guide/{slug(title)}.md"
            # Tables of figures take the room that a table of contents would.
            front = "" if "\n### " in text else "---\nhide: [toc]\n---\n"
            pages[page] = with_files(page, f"{front}# {title}\n{text}", about, files)
    pages["index.md"] = with_files("index.md", home, about, files)
    for name, page in WHOLE.items():
        text = (ROOT / name).read_text("utf-8")
        pages[page] = with_files(page, text, about, files, str(PurePosixPath(name).parent))
    for name in EXAMPLES:
        pages[f"examples/{name}.md"] = cells((ROOT / f"examples/{name}.py").read_text("utf-8"))
    pages["commands.md"] = command_pages()
    return pages, files


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Name the guides in the site's navigation, in the README's order, before what is there."""
    readme = (ROOT / "README.md").read_text("utf-8")
    guides = [
        {title: f"guide/{slug(title)}.md"}
        for title, _ in sections(readme)
        if title and title not in (*HOME, *NO_GUIDE)
    ]
    for entry in config.nav or []:
        if "Guides" in entry:
            entry["Guides"] = [*guides, *entry["Guides"]]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add what is made to what lies in ``docs/``."""
    pages, shown = made()
    for page, text in pages.items():
        files.append(File.generated(config, page, content=text))
    for name in sorted(shown):
        files.append(File.generated(config, f"files/{name}", abs_src_path=str(ROOT / name)))
    return files
