"""util/identity.py: what is compared before anything is resumed, and side files that are damaged."""

import pytest

from common import UserError
from util.identity import differences, read_side_file, require_same


@pytest.mark.parametrize(
    ("stored", "wanted", "expected"),
    [
        ({"a": 1, "more": 2}, {"a": 1}, []),
        ({"a": [1, 2]}, {"a": (1, 2)}, []),
        ({"a": 1}, {"a": 2}, ["a: there 1, now 2"]),
        ({}, {"a": "x"}, ["a: there nothing, now x"]),
        ({"a": ["x", "y"]}, {"a": ["x"]}, ["a: there x y, now x"]),
        ({"a": {"b": 1, "c": 2}}, {"a": {"b": 1, "c": 3}}, ["a.c: there 2, now 3"]),
        ({"a": {"b": 1, "c": 2}}, {"a": {"b": 1}}, ["a.c: there 2, now nothing"]),
        ({"a": {"b": 1}}, {"a": 1}, ["a: there {'b': 1}, now 1"]),
    ],
)
def test_only_entries_that_are_asked_for_are_compared(stored, wanted, expected):
    assert differences(stored, wanted) == expected


def test_another_thing_is_refused_with_its_differences_and_the_ways_out():
    require_same({"a": 1}, {"a": 1}, "here", "use --overwrite")
    with pytest.raises(UserError, match=r"^here .*a: there 1, now 2.*; use --overwrite$"):
        require_same({"a": 1}, {"a": 2}, "here", "use --overwrite")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "missing"),
        (b"", "empty"),
        (b'{"a": 1', "damaged"),
        (b"[1]", "object"),
        (b"[{}]", "object"),
        (b"{}", "no a, b"),
        (b'{"a": 1}', "no b"),
    ],
)
def test_a_side_file_that_a_power_cut_left_empty_is_named(tmp_path, content, reason):
    path = tmp_path / "meta.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=rf"meta\.json .*{reason}.*; remove it"):
        read_side_file(path, "remove it", keys=("a", "b"))


def test_a_side_file_with_a_byte_order_mark_is_read(tmp_path):
    (tmp_path / "meta.json").write_bytes(b'\xef\xbb\xbf{"a": "\xff"}')
    assert read_side_file(tmp_path / "meta.json", "")["a"] == "\udcff"
