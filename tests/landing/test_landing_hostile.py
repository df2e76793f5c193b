"""Whatever a peer calls its files, and whatever lies there: all of it stays in its folder."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from receiving_disk import KEY, Parts, content, tree

from securelink.errors import TransferError
from securelink.filenames import components
from securelink.landing import Conflict, Landed, Landing

PLAIN = ("a", "b", "a.txt", "photos")

PIECES = st.sampled_from(
    (*PLAIN, "..", ".", "", ".partial", "\\", "C:", "nul", "a ", "a.", "\u202etxt.a", "\ud800", "~")
)
NAMES = st.lists(PIECES, min_size=1, max_size=4).map("/".join) | st.text(max_size=12)

LINKS = st.dictionaries(
    st.lists(st.sampled_from(PLAIN), min_size=1, max_size=3).map("/".join),
    st.sampled_from(["outside", "outside/mine", "outside/nothing", "..", ".", "a", "/"]),
    max_size=4,
)


def plant(folder: Path, outside: Path, links: dict[str, str]) -> set[Path]:
    """Symbolic links below a peer's folder, wherever there is room for them."""
    planted = set()
    for name, target in links.items():
        place = folder / name
        if not any(each.is_symlink() for each in (place, *place.parents)) and not place.exists():
            place.parent.mkdir(parents=True, exist_ok=True)
            place.symlink_to(outside.parent / target if "outside" in target else target)
            planted.add(place)
    return planted


@settings(max_examples=80, deadline=None)
@given(
    names=st.lists(NAMES, min_size=1, max_size=4),
    links=LINKS,
    conflict=st.sampled_from(Conflict),
    folders=st.lists(NAMES, max_size=2),
)
def test_all_stays_in_the_folder(
    names: list[str], links: dict[str, str], conflict: Conflict, folders: list[str]
) -> None:
    with tempfile.TemporaryDirectory() as name:
        base = Path(name)
        outside = base / "outside"
        outside.mkdir()
        (outside / "mine").write_bytes(b"mine")
        root = base / "received"
        (root / "bob").mkdir(parents=True)
        (root / "mine").write_bytes(b"mine")
        planted = plant(root / "bob", outside, links)
        targets = {each: each.readlink() for each in planted}
        landing = Landing(root, "bob", KEY)
        parts = Parts(landing)
        try:
            ready = []
            for number, each in enumerate(names):
                try:
                    safe = "/".join(components(each))
                except ValueError:
                    continue
                ready.append(parts.whole(safe, b"%d" % number))
            for each in folders:
                try:
                    landing.make_folder(components(each), 0o700, 0)
                except (ValueError, TransferError):
                    continue
            results = landing.finish(ready, conflict)
        finally:
            parts.close()
        assert content(outside) == {"mine": b"mine"}
        assert {each.name for each in base.iterdir()} == {"outside", "received"}
        assert {each.name for each in root.iterdir()} <= {"bob", ".partial", "mine"}
        assert {each: each.readlink() for each in planted} == targets
        # All that landed is a file of its own, below folders of its own.
        landed = [each for each in results if isinstance(each, Landed)]
        for each in landed:
            assert each.path.resolve() == each.path.absolute().resolve()
            assert each.path.is_relative_to(root / "bob")
            assert not any(above in planted for above in (each.path, *each.path.parents))
        if conflict is not Conflict.OVERWRITE:
            assert len({each.path for each in landed}) == len(landed)
        files = {each for each in tree(root / "bob") if each.is_file() and not each.is_symlink()}
        assert files == {each.path for each in landed}
