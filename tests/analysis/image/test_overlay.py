"""Overlay semantics: what is hidden, to the byte, against rules applied one file at a time."""

from __future__ import annotations

import io
from collections.abc import Iterator

from hypothesis import given
from hypothesis import strategies as st

from tests.support.image_tarballs import LayerTar
from wattbench.analysis.image import layers
from wattbench.analysis.image.layers import Layer
from wattbench.analysis.image.overlay import How, Overlay


def read(*tars: LayerTar) -> list[Layer]:
    made = [layers.read(io.BytesIO(tar.bytes())) for tar in tars]
    for index, layer in enumerate(made):
        layer.renumber(index)
    return made


def hidden(*tars: LayerTar) -> dict[str, tuple[int, int, str]]:
    return {one.path: (one.size, one.by, str(one.how)) for one in Overlay(read(*tars)).hidden}


def test_a_file_stored_again_hides_the_first() -> None:
    assert hidden(LayerTar().file("a/b", b"12345"), LayerTar().file("a/b", b"1234567")) == {
        "a/b": (5, 1, "overwritten")
    }


def test_a_file_stored_again_unchanged_is_distinguished_from_a_changed_one() -> None:
    assert (
        hidden(LayerTar().file("a", b"same"), LayerTar().file("./a", b"same"))["a"][2] == How.COPIED
    )


def test_a_whiteout_hides_a_file_and_a_whole_folder() -> None:
    base = LayerTar().file("d/x", b"1").file("d/e/y", b"22").file("keep", b"333")
    assert hidden(base, LayerTar().delete("d")) == {
        "d/x": (1, 1, "deleted"),
        "d/e/y": (2, 1, "deleted"),
    }


def test_a_whiteout_does_not_hide_what_its_own_layer_adds() -> None:
    overlay = Overlay(
        read(LayerTar().file("d/x", b"1"), LayerTar().file("d/x", b"new").delete("d/x"))
    )
    assert [one.size for one in overlay.hidden] == [1]
    assert overlay.files["d/x"].size == 3


def test_an_opaque_folder_hides_everything_below_it_but_its_own() -> None:
    overlay = Overlay(
        read(
            LayerTar().file("d/x", b"1").file("d/e/y", b"22"),
            LayerTar().file("d/new", b"4444").opaque("d"),
        )
    )
    assert sorted(one.size for one in overlay.hidden) == [1, 2]
    assert set(overlay.files) == {"d/new"}


def test_a_file_in_place_of_a_folder_hides_the_folder_and_the_reverse() -> None:
    assert hidden(LayerTar().file("d/x", b"1"), LayerTar().file("d", b"file")) == {
        "d/x": (1, 1, "overwritten")
    }
    assert hidden(LayerTar().file("d", b"file"), LayerTar().folder("d").file("d/x", b"1")) == {
        "d": (4, 1, "overwritten")
    }


def test_a_folder_over_a_folder_merges() -> None:
    assert hidden(LayerTar().file("d/x", b"1"), LayerTar().folder("d").file("d/y", b"1")) == {}


def test_hard_links_share_bytes_and_are_seen_while_one_name_is() -> None:
    linked = LayerTar().file("a", b"12345").hardlink("b", "a")
    assert read(linked)[0].size_bytes == 5
    assert hidden(LayerTar().file("a", b"12345").hardlink("b", "a"), LayerTar().delete("a")) == {}
    assert (
        hidden(
            LayerTar().file("a", b"12345").hardlink("b", "./a"), LayerTar().delete("a").delete("b")
        )["b"][0]
        == 5
    )


def test_a_file_twice_in_one_layer_counts_twice_and_hides_the_first() -> None:
    tar = LayerTar().file("a", b"12").file("a", b"345")
    (layer,) = read(tar)
    assert layer.size_bytes == 5
    assert [one.size for one in Overlay([layer]).hidden] == [2]


def test_links_are_followed_as_inside_a_container() -> None:
    base = (
        LayerTar()
        .file("usr/bin/python3.11", b"1")
        .symlink("bin", "usr/bin")
        .symlink("usr/bin/python3", "../../bin/python3.11")
    )
    base.symlink("loop", "loop").symlink("opt/py", "/bin/python3").symlink(
        "out", "/../../usr/bin/python3"
    )
    overlay = Overlay(read(base))
    for place in ("/bin/python3", "opt/py", "out", "/usr/./bin/../bin/python3"):
        found = overlay.resolve(place)
        assert found is not None
        assert found[0] == "usr/bin/python3.11"
    assert overlay.resolve("loop") is None
    assert overlay.resolve("/nowhere/x") is None


# A layer as data: deletions, opaque folders, and files with content; few names, so that they collide.
NAMES = st.lists(st.sampled_from("abc"), min_size=1, max_size=3).map("/".join)
LAYER = st.fixed_dictionaries(
    {
        "files": st.dictionaries(NAMES, st.binary(max_size=6), max_size=5),
        "delete": st.sets(NAMES, max_size=2),
        "opaque": st.sets(NAMES, max_size=1),
    }
)


def consistent(files: dict[str, bytes]) -> dict[str, bytes]:
    """Without files that would lie below another file of the layer."""
    return {p: d for p, d in files.items() if not any(p.startswith(q + "/") for q in files)}


def parents(path: str) -> Iterator[str]:
    while "/" in path:
        path = path.rpartition("/")[0]
        yield path


def is_hidden_by(path: str, layer: dict[str, object]) -> bool:
    """The specification's rules for one file and one layer above it."""
    ancestors = list(parents(path))
    files = layer["files"]
    assert isinstance(files, dict)
    return (
        path in layer["delete"]  # type: ignore[operator]
        or any(folder in layer["delete"] for folder in ancestors)  # type: ignore[operator]
        or any(folder in layer["opaque"] for folder in ancestors)  # type: ignore[operator]
        or path in files
        or any(folder in files for folder in ancestors)
        or any(other.startswith(path + "/") for other in [*files, *layer["opaque"]])  # type: ignore[misc]
        or path in layer["opaque"]  # type: ignore[operator]
    )


@given(st.lists(LAYER, min_size=1, max_size=4))
def test_hidden_bytes_are_those_of_a_model_that_asks_every_file_of_every_layer(
    stack: list[dict[str, object]],
) -> None:
    tars = []
    for layer in stack:
        layer["files"] = consistent(layer["files"])  # type: ignore[arg-type]
        # an opaque mark makes its folder one, so no file of the layer may stand there
        layer["opaque"] = {
            p
            for p in layer["opaque"]
            if p not in layer["files"] and not any(q in layer["files"] for q in parents(p))
        }  # type: ignore[attr-defined, operator]
        tar = LayerTar()
        for path in layer["opaque"]:
            tar.folder(path).opaque(path)
        for path, data in layer["files"].items():  # type: ignore[attr-defined]
            tar.file(path, data)
        for path in layer["delete"]:  # type: ignore[attr-defined]
            tar.delete(path)
        tars.append(tar)
    overlay = Overlay(read(*tars))
    lost = {
        (index, path): len(data)
        for index, layer in enumerate(stack)
        for path, data in layer["files"].items()  # type: ignore[attr-defined]
        if any(is_hidden_by(path, above) for above in stack[index + 1 :])
    }
    assert {(one.layer, one.path): one.size for one in overlay.hidden} == lost
    stored = sum(len(d) for layer in stack for d in layer["files"].values())  # type: ignore[attr-defined]
    assert stored == sum(lost.values()) + sum(e.size for e in overlay.files.values())
