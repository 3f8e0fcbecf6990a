"""MkDocs hook: the search of the site works from the file system, where the theme's own one can't.

Browsers let a page that was opened as a file neither start a worker nor fetch the index, which is what the
search plugin's script does. It is replaced by one file that holds library, index and ``search.js``.
"""

from __future__ import annotations

import json
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig


def on_post_build(config: MkDocsConfig) -> None:
    """Replace the plugin's script, and remove what only that one read."""
    folder = Path(config.site_dir, "search")
    library = (folder / "lunr.js").read_text(encoding="utf-8")
    documents = json.loads((folder / "search_index.json").read_text(encoding="utf-8"))["docs"]
    script = Path(__file__).with_name("search.js").read_text(encoding="utf-8")
    data = json.dumps(documents, ensure_ascii=False, separators=(",", ":"))
    parts = (library, f"const DOCUMENTS = {data};", script)
    (folder / "main.js").write_text("\n".join(parts), encoding="utf-8")
    for name in ("lunr.js", "worker.js", "search_index.json"):
        (folder / name).unlink()
