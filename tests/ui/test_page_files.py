"""The document of the pages: what is added to Streamlit's."""

from __future__ import annotations

from pathlib import Path

import pytest
from streamlit.file_util import get_static_dir

from app.ui.page_files import ELEMENTS, document, needed_later

INDEX = '<html><head><script src="./static/js/index.1.js"></script></head><body><p></body></html>'


def test_the_document_names_what_the_first_elements_import_once_each(tmp_path: Path) -> None:
    code = {
        "Html.1.js": 'import{a}from"./index.1.js";import{b}from"./purify.1.js";import"./x.1.js";',
        "purify.1.js": "import{c}from`./x.1.js`;const late=import('./late.1.js')",
        "x.1.js": "", "late.1.js": "", "index.1.js": "", "Slider.1.js": "",
    }  # fmt: skip
    for name, text in code.items():
        (tmp_path / name).write_text(text)
    names = needed_later(tmp_path, INDEX)
    assert names == ["Html.1.js", "purify.1.js", "x.1.js"]
    text = document(INDEX, names).decode()
    assert [text.count(f'modulepreload" crossorigin href="./static/js/{n}"') for n in names] == [
        1
    ] * 3
    head, _, body = text.partition("<body>")
    assert "vite:preloadError" in head and "<style>" in body


def test_streamlit_has_the_elements_under_these_names() -> None:
    names = needed_later(Path(get_static_dir()) / "static" / "js", "")
    assert {name.partition(".")[0] for name in names} >= set(ELEMENTS)


def test_a_document_of_another_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="has no <body>"):
        document("<html><head></head></html>")
