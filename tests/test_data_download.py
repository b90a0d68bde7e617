"""Sets known by name: fetched from a local server, and believed only for their checksum."""

import gzip
import hashlib
import struct
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from edgegan.errors import DataError
from edgegan.trainer.data import open_dataset
from edgegan.trainer.data.download import NAMED, File, NamedSet

IMAGES = np.random.default_rng(0).integers(0, 256, (20, 28, 28), np.uint8)
LABELS = np.arange(20) % 10
RAW = {
    "train-images-idx3-ubyte": b"\0\0\x08\3" + struct.pack(">3I", 20, 28, 28) + IMAGES.tobytes(),
    "train-labels-idx1-ubyte": b"\0\0\x08\1" + struct.pack(">I", 20) + LABELS.astype(np.uint8).tobytes(),
}
GOOD = {f"/{name}.gz": gzip.compress(raw) for name, raw in RAW.items()}
PICTURES = "/train-images-idx3-ubyte.gz"


class Server:
    """Serves `files` on 127.0.0.1 and keeps the list of paths it was asked for."""

    def __init__(self):
        self.files, self.asked, self.promise = dict(GOOD), [], 0
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                outer.asked.append(self.path)
                body = outer.files.get(self.path)
                if body is None:
                    self.send_error(404)
                    return
                self.send_response(200)
                self.send_header("Content-Length", str(len(body) + outer.promise))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/"
        self.thread = threading.Thread(target=self.http.serve_forever, args=(0.01,))
        self.thread.start()

    def stop(self):
        self.http.shutdown()
        self.thread.join()
        self.http.server_close()


@pytest.fixture
def serve():
    servers = []

    def start():
        servers.append(Server())
        return servers[-1]

    yield start
    for server in servers:
        server.stop()


@pytest.fixture(autouse=True)
def root(tmp_path, monkeypatch):
    """A data root of its own, and a small set in the place of MNIST: the tests never leave this machine."""
    monkeypatch.setenv("EDGEGAN_DATA", str(tmp_path / "root"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    files = [File(name, hashlib.sha256(raw).hexdigest(), len(raw)) for name, raw in RAW.items()]
    small = NamedSet("mnist", files[0], files[1], tuple("0123456789"), ("http://127.0.0.1:9/",))
    monkeypatch.setitem(NAMED, "mnist", small)
    return tmp_path / "root"


def error_of(**options):
    with pytest.raises(DataError) as caught:
        open_dataset("mnist", **options)
    message = str(caught.value)
    assert message.isprintable()
    return message


def parts(root):
    return [path.name for path in root.rglob("*.part")]


def test_the_published_sets():
    """60,000 pictures each; the checksums are those of the files that these sets' authors published."""
    assert NAMED["fashion-mnist"].images.size == 47_040_016
    assert NAMED["fashion-mnist"].images.sha256.startswith("c59f468a2f672dc8")
    assert len(NAMED["fashion-mnist"].classes) == 10
    assert all(mirror.endswith("/") for named in NAMED.values() for mirror in named.mirrors)


def test_download_and_then_no_network(serve, root):
    server, steps = serve(), []
    dataset = open_dataset("mnist", download_from=server.url, progress=lambda *step: steps.append(step))
    np.testing.assert_array_equal(dataset.images[..., 0], IMAGES)
    np.testing.assert_array_equal(dataset.labels, LABELS)
    assert dataset.classes == tuple("0123456789")
    size = len(GOOD[PICTURES])
    assert (size, size, "downloading train-images-idx3-ubyte") in steps
    assert server.asked == list(GOOD)
    assert open_dataset("mnist").digest == dataset.digest
    assert open_dataset("mnist", resolution=14).images.shape == (20, 14, 14, 1)
    assert server.asked == list(GOOD), "what is there is not fetched again"


def test_the_next_mirror_is_tried(serve, monkeypatch):
    lost, good = serve(), serve()
    lost.files.clear()
    monkeypatch.setitem(NAMED, "mnist", replace(NAMED["mnist"], mirrors=(lost.url, good.url)))
    assert len(open_dataset("mnist")) == 20
    assert lost.asked == good.asked == list(GOOD)


def test_a_given_mirror_is_the_only_one(serve, monkeypatch):
    lost, public = serve(), serve()
    lost.files.clear()
    monkeypatch.setitem(NAMED, "mnist", replace(NAMED["mnist"], mirrors=(public.url,)))
    message = error_of(download_from=lost.url)
    assert lost.url in message
    assert "404" in message
    assert not public.asked


def test_every_failure_is_told_with_the_way_out(root):
    message = error_of()
    assert "http://127.0.0.1:9/" in message
    assert "refused" in message
    assert "--download-from" in message
    assert str(root / "downloads" / "mnist") in message


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (gzip.compress(RAW["train-images-idx3-ubyte"][:-1] + b"\0"), "SHA-256"),
        (gzip.compress(RAW["train-images-idx3-ubyte"])[:-100], "damaged"),
        (b"<html>log in to this network</html>", "not an IDX file"),
        (b"", "not an IDX file"),
        (gzip.compress(bytes(10_000_000)), "not an IDX file"),
        (bytes(200_000), "more than the"),
    ],
)
def test_wrong_content_is_refused_and_not_kept(serve, root, body, said):
    server = serve()
    server.files[PICTURES] = body
    assert said in error_of(download_from=server.url)
    assert not list((root / "downloads" / "mnist").iterdir())


def test_a_broken_connection_is_noticed(serve, root):
    server = serve()
    server.promise = 7
    size = len(GOOD[PICTURES])
    assert f"{size} of {size + 7} bytes" in error_of(download_from=server.url)
    assert not parts(root)


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("how", ["folder", "file URL", "by hand"])
def test_without_a_network(tmp_path, root, packed, how):
    folder = root / "downloads" / "mnist" if how == "by hand" else tmp_path / "a mirror"
    folder.mkdir(parents=True)
    for name, raw in RAW.items():
        path = folder / (f"{name}.gz" if packed else name)
        path.write_bytes(gzip.compress(raw) if packed else raw)
    mirror = {"folder": str(folder), "file URL": folder.as_uri(), "by hand": None}[how]
    assert len(open_dataset("mnist", download_from=mirror)) == 20


def test_a_wrong_file_put_there_by_hand_is_refused(root):
    folder = root / "downloads" / "mnist"
    folder.mkdir(parents=True)
    for name, raw in RAW.items():
        (folder / name).write_bytes(raw[:-1] + b"\xee")
    message = error_of()
    assert str(folder / "train-images-idx3-ubyte") in message
    assert "delete it" in message


@pytest.mark.parametrize("mirror", ["ftp://127.0.0.1/", "/no/such/folder", "http://127.0.0.1:x/"])
def test_mirrors_that_are_none(mirror):
    assert mirror in error_of(download_from=mirror)
