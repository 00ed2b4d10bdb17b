"""What mkdocs is told beside mkdocs.yml: the pages that lie at the top of the repository.

Links are written for readers of the repository; here they lead to the same pages of the site.
"""

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
TOP = {
    "README.md": "index.md",
    "BENCHMARKS.md": "BENCHMARKS.md",
    "CHANGELOG.md": "CHANGELOG.md",
    "CONTRIBUTING.md": "CONTRIBUTING.md",
}


def on_files(files: Files, config: Any) -> Files:
    """Adds the pages of the top."""
    for name, page in TOP.items():
        text = (ROOT / name).read_text(encoding="utf-8")
        files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(markdown: str, **given: Any) -> str:
    """Takes `docs/` and `../` off links, and links off what is no page."""
    markdown = re.sub(r"\]\((?:\.\./|docs/)([^)]*)\)", r"](\1)", markdown)
    markdown = markdown.replace("](README.md", "](index.md")
    return re.sub(r"\[([^]]*)\]\(LICENSE\)", r"\1", markdown)
