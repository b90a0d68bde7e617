"""Tar shards as WebDataset lays them out, and what is said of those that are not to be trusted."""

import io
import tarfile
import zipfile

import numpy as np
import pytest
from PIL import Image

from edgegan.errors import DataError
from edgegan.trainer.data import default_root, open_dataset
from support import random_picture, save_picture

pytestmark = pytest.mark.usefixtures("root")


def png(array):
    data = io.BytesIO()
    Image.fromarray(array).save(data, "PNG")
    return data.getvalue()


def write_tar(path, members, **how):
    """A tar of {name: bytes, or an array to be saved as PNG, or a TarInfo that says all itself}."""
    path.parent.mkdir(exist_ok=True)
    with tarfile.open(path, "w", **how) as archive:
        for name, content in members.items():
            info, data = tarfile.TarInfo(name), content
            if isinstance(content, tarfile.TarInfo):
                info, data = content, b""
            elif isinstance(content, np.ndarray):
                data = png(content)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def error_of(source, **options):
    """The message of the DataError that opening raises: one line, and nothing half-built is left."""
    with pytest.raises(DataError) as caught:
        open_dataset(str(source), **options)
    assert str(caught.value).isprintable()
    decoded = default_root() / "decoded"
    assert not decoded.exists() or not list(decoded.iterdir())
    return str(caught.value)


def samples(*labels, start=0):
    """Members and pictures of samples 000.png + 000.cls + 000.json, ..."""
    arrays = [random_picture() for _ in labels]
    members = {}
    for i, (array, label) in enumerate(zip(arrays, labels, strict=True), start):
        members |= {f"{i:03}.json": b"{}", f"{i:03}.png": array}
        if label is not None:
            members[f"{i:03}.cls"] = str(label).encode()
    return members, arrays


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_a_shard_with_labels(tmp_path, format):
    members, arrays = samples(7, -2, 7, 10)
    dataset = open_dataset(str(write_tar(tmp_path / "set.tar", members, format=format)))
    np.testing.assert_array_equal(dataset.images, arrays)
    assert dataset.classes == ("-2", "7", "10")
    assert dataset.labels.tolist() == [1, 0, 1, 2]
    assert dataset.name == "set"


def test_members_of_a_sample_need_not_be_neighbours_nor_sorted(tmp_path):
    members, arrays = samples(3, 1, 2)
    names = sorted(members, key=lambda name: (name[4:], -int(name[:3])))  # 002.cls, 001.cls, 000.cls, 002.json, ...
    dataset = open_dataset(str(write_tar(tmp_path / "set.tar", {name: members[name] for name in names})))
    np.testing.assert_array_equal(dataset.images, arrays)
    assert dataset.labels.tolist() == [2, 0, 1]


def test_folders_and_patterns_of_shards_are_one_set(tmp_path):
    folder, pictures = tmp_path / "shards", []
    for i in range(12):
        members, arrays = samples(i % 3, i % 2, start=2 * i)
        write_tar(folder / f"part-{i:03}.tar", members)
        pictures += arrays
    (folder / "sizes.json").write_text("{}")
    whole = open_dataset(str(folder))
    np.testing.assert_array_equal(whole.images, pictures)
    assert open_dataset(str(folder / "part-{000..011}.tar")).digest == whole.digest
    assert open_dataset(str(folder / "part-{0..0}{00..11}.tar"), resolution=None).digest == whole.digest
    some = open_dataset(str(folder / "part-{009..010}.tar"))
    np.testing.assert_array_equal(some.images, pictures[18:22])
    assert some.name == "part"


def test_patterns_that_do_not_fit(tmp_path):
    for i in range(3):
        write_tar(tmp_path / f"a-{i}.tar", samples(0, 1)[0])
    assert "2 of the 5 files" in error_of(tmp_path / "a-{0..4}.tar")
    assert "a-3.tar" in error_of(tmp_path / "a-{0..4}.tar")
    assert "0 files" in error_of(tmp_path / "a-{4..0}.tar")
    assert "valid: 1 to 1,000,000" in error_of(tmp_path / "a-{0..999999999999999999}.tar")
    (tmp_path / "a-0.txt").write_text("x")
    assert "a-0.txt is no .tar" in error_of(tmp_path / "a-{0..0}.txt")


def test_a_tar_of_a_folder_is_as_a_zip_of_it(folder, tmp_path):
    for name in ("pets/cat-b/1.png", "pets/cat/1.png", "pets/cat/deep/0.png"):
        save_picture(folder / name)
    with tarfile.open(tmp_path / "set.tar", "w") as archive:
        archive.add(folder, ".")
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        for file in folder.rglob("*.png"):
            archive.write(file, file.relative_to(folder))
    a, b, c = (open_dataset(str(source)) for source in (folder, tmp_path / "set.tar", tmp_path / "set.zip"))
    assert a.digest == b.digest == c.digest
    assert a.classes == b.classes == c.classes == ("cat", "cat-b")


def test_a_changed_shard_is_read_again(tmp_path):
    path = write_tar(tmp_path / "set.tar", samples(0, 1)[0])
    before = open_dataset(str(path))
    members, arrays = samples(0, 1, 1)
    after = open_dataset(str(write_tar(path, members)))
    np.testing.assert_array_equal(after.images, arrays)
    assert before.digest != after.digest


# Bad shards ---------------------------------------------------------------------------------------


def test_samples_that_do_not_fit_together(tmp_path):
    path, one = tmp_path / "set.tar", random_picture()
    members, _ = samples(0, 1, None, 1)
    message = error_of(write_tar(path, members))
    assert "none for 002.png" in message
    for label in (b"cat", b"1 2", b"", b"9" * 30, b"1" + b" " * 100):
        assert "000.cls" in error_of(write_tar(path, samples(0, 1)[0] | {"000.cls": label}))
    assert "000.png and 000.seg.png" in error_of(write_tar(path, {"000.png": one, "000.seg.png": one}))
    assert "for 001 and no picture" in error_of(write_tar(path, {"000.png": one, "000.cls": b"1", "001.cls": b"1"}))
    assert "b.heic" in error_of(write_tar(path, {"a.png": one, "b.heic": b"x"}))
    assert "no pictures" in error_of(write_tar(path, {"a.txt": b"x"}))
    folder = tmp_path / "mixed"
    write_tar(folder / "a.tar", samples(0, 1)[0])
    save_picture(folder / "b.png")
    assert "both .tar shards and b.png" in error_of(folder)


def member(name, type, link=""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = type, link
    return info


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("../evil.png", b"x", "outside"),
        ("/etc/evil.png", b"x", "outside"),
        ("b.png", member("b.png", tarfile.SYMTYPE, "/etc/passwd"), "b.png, which is no plain file"),
        ("b.png", member("b.png", tarfile.LNKTYPE, "a.png"), "b.png, which is no plain file"),
        ("b.png", member("b.png", tarfile.CHRTYPE), "b.png, which is no plain file"),
    ],
)
def test_tars_that_are_not_to_be_trusted(tmp_path, name, content, said):
    path = write_tar(tmp_path / "set.tar", {"a.png": random_picture(), name: content})
    assert said in error_of(path)


def test_damage_is_never_taken_for_the_end(tmp_path):
    """Python's tarfile stops without a word at a header that it cannot read."""
    good = write_tar(tmp_path / "good.tar", samples(0, 1, 0)[0]).read_bytes()
    path = tmp_path / "set.tar"
    header = good.index(b"001.png")
    end = len(good.rstrip(b"\0")) // 512 * 512 + 512
    damaged = {
        "cut in a picture": good[: header + 600],
        "cut between members": good[:header],
        "cut before the end mark": good[:end],
        "a bad header": good[:header] + b"\xff" * 512 + good[header + 512 :],
        "two tars in one": good + good,
        "gzip": b"\x1f\x8b" + good,
        "no tar": b"hello",
    }
    for what, data in damaged.items():
        path.write_bytes(data)
        assert "set.tar" in error_of(path), what
    negative = bytearray(good[header : header + 512])
    negative[124:136] = b"\xff" * 12  # a size of -1, in base 256
    negative[148:156] = b" " * 8
    negative[148:156] = b"%06o\0 " % sum(negative)
    path.write_bytes(good[:header] + negative + good[header + 512 :])
    assert "set.tar" in error_of(path)


@pytest.mark.parametrize("suffix", ["tar.gz", "tgz", "tar.bz2", "tar.xz", "TAR.ZST"])
def test_packed_tars_are_refused_with_the_way_out(tmp_path, suffix):
    path = tmp_path / f"set.{suffix}"
    path.write_bytes(b"\x1f\x8b")
    assert "unpack it to a plain .tar" in error_of(path)
    assert "unpack it to a plain .tar" in error_of(tmp_path)


def test_a_broken_picture_in_a_shard_is_named_with_its_shard(tmp_path):
    for i in range(2):
        write_tar(tmp_path / "s" / f"{i}.tar", {"a.png": random_picture(), "b.png": b"x"})
    assert error_of(tmp_path / "s").startswith("2 of 4 pictures")
    assert "1.tar: b.png (not a picture" in error_of(tmp_path / "s")
