"""The catalogue of public weights, and downloads from a server of our own: resumed, verified, never half."""

import hashlib
import http.server
import threading
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from scripts.stages.doctor import _public
from stylegan2.public import catalogue
from stylegan2.public.catalogue import CATALOGUE, Entry, has_hash, path_of, state_of
from stylegan2.public.download import fetch
from stylegan2.weights import WeightsError

CONTENT = bytes(range(256)) * 400
DIGEST = hashlib.sha256(CONTENT).hexdigest()


class Server(http.server.BaseHTTPRequestHandler):
    """/whole understands ranges, /plain does not, /short breaks off, /page is HTML; each request is noted."""

    requests: list[tuple[str, str | None]] = []  # noqa: RUF012 (one server at a time)

    def do_GET(self):
        wanted = self.headers.get("Range")
        self.requests.append((self.path, wanted))
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and self.path != "/plain" else 0
        if self.path == "/absent":
            return self.send_error(404)
        if start >= len(CONTENT):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(CONTENT)}")
            return self.end_headers()
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(CONTENT) - start))
        self.send_header("Content-Type", "text/html" if self.path == "/page" else "application/octet-stream")
        self.end_headers()
        end = start + 30_000 if self.path == "/short" else len(CONTENT)
        self.wfile.write(CONTENT[start:end])

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def server():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()


@pytest.fixture
def entry(server):
    Server.requests.clear()
    return Entry("net.pt", "a network", f"{server}/whole", "MIT", "Nobody 2024", DIGEST, size=len(CONTENT))


def at(entry, path, **changes):
    return replace(entry, url=entry.url.replace("/whole", path), **changes)


def test_a_file_is_fetched_once_and_verified(entry, tmp_path):
    steps = []
    path = fetch(entry, tmp_path / "new", lambda done, total: steps.append((done, total)))
    assert path.read_bytes() == CONTENT and [p.name for p in path.parent.iterdir()] == ["net.pt"]
    assert steps[-1] == (len(CONTENT), len(CONTENT))
    assert fetch(entry, tmp_path / "new") == path and len(Server.requests) == 1


@pytest.mark.parametrize("have", [1, 50_000, len(CONTENT)])
def test_it_goes_on_where_it_broke_off(entry, tmp_path, have):
    (tmp_path / ".net.pt.part").write_bytes(CONTENT[:have])
    assert fetch(entry, tmp_path).read_bytes() == CONTENT
    assert Server.requests == [("/whole", f"bytes={have}-")]


def test_a_server_without_ranges_starts_again(entry, tmp_path):
    (tmp_path / ".net.pt.part").write_bytes(b"x" * 5000)
    assert fetch(at(entry, "/plain"), tmp_path).read_bytes() == CONTENT


def test_a_longer_leftover_starts_again(entry, tmp_path):
    (tmp_path / ".net.pt.part").write_bytes(b"x" * (len(CONTENT) + 1))
    assert fetch(entry, tmp_path).read_bytes() == CONTENT


def test_what_broke_off_is_kept_for_the_next_call(entry, tmp_path):
    short = at(entry, "/short")
    for expected in (30_000, 60_000, 90_000):
        with pytest.raises(WeightsError, match="goes on from there"):
            fetch(short, tmp_path)
        assert (tmp_path / ".net.pt.part").stat().st_size == expected and not (tmp_path / "net.pt").exists()
    assert fetch(short, tmp_path).read_bytes() == CONTENT


@pytest.mark.parametrize("changes", [{"sha256": "0" * 64}, {"sha256": "abcd"}, {"size": 10}, {"size": 10**6}])
def test_another_file_is_refused_and_removed(entry, tmp_path, changes):
    with pytest.raises(WeightsError, match=r"not the file that is known.*expected"):
        fetch(replace(entry, **changes), tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_wrong_file_in_the_folder_is_refused_and_kept(entry, tmp_path):
    (tmp_path / "net.pt").write_bytes(b"mine")
    with pytest.raises(WeightsError, match="not the file"):
        fetch(entry, tmp_path)
    assert (tmp_path / "net.pt").read_bytes() == b"mine" and not Server.requests


def test_hash_prefixes_and_unknown_hashes(entry, tmp_path):
    assert fetch(replace(entry, sha256=DIGEST[:8]), tmp_path / "a").exists()
    assert fetch(replace(entry, sha256=None, size=None), tmp_path / "b").exists()
    assert has_hash(replace(entry, sha256=None), DIGEST) is None
    assert has_hash(entry, "0" * 64) is False


@pytest.mark.parametrize(
    ("path", "words"), [("/absent", r"answers 404 .*TALKING_HEADS_WEIGHTS"), ("/page", "web page.*browser")]
)
def test_other_answers(entry, tmp_path, path, words):
    with pytest.raises(WeightsError, match=words):
        fetch(at(entry, path), tmp_path)
    assert not (tmp_path / "net.pt").exists()


def test_offline_is_said_in_one_sentence(entry, tmp_path):
    gone = replace(entry, url="http://127.0.0.1:9/net.pt")  # nothing listens there
    with pytest.raises(
        WeightsError, match=r"cannot be reached.*offline.*net\.pt.*TALKING_HEADS_WEIGHTS=FOLDER"
    ) as caught:
        fetch(gone, tmp_path)
    assert "\n" not in str(caught.value) and not (tmp_path / "net.pt").exists()


def test_the_offline_folder_comes_first(entry, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setattr(catalogue, "CATALOGUE", {**CATALOGUE, "net": entry})
    hub, own = tmp_path / "hub" / "checkpoints", tmp_path / "own"
    hub.mkdir(parents=True)
    own.mkdir()
    assert path_of("net") == hub / "net.pt" and state_of("net") == "missing"
    (hub / "net.pt").write_bytes(CONTENT)
    monkeypatch.setenv(catalogue.FOLDER, str(own))
    assert path_of("net") == hub / "net.pt" and state_of("net") == f"verified {DIGEST[:12]}"
    (own / "net.pt").write_bytes(b"other")
    assert path_of("net") == own / "net.pt" and state_of("net").startswith("WRONG HASH")
    assert path_of("inception_fid") == own / CATALOGUE["inception_fid"].file
    (own / CATALOGUE["psp_ffhq"].file).write_bytes(b"x")
    _public()
    printed = capsys.readouterr().out
    assert all(name in printed for name in CATALOGUE)
    assert "there, hash unknown" in printed and "sha256 unknown" in printed


@pytest.mark.parametrize("name", CATALOGUE)
def test_entries_are_complete_and_hashes_have_a_source(name):
    item = CATALOGUE[name]
    assert (
        item.url.startswith("https://")
        and item.licence
        and item.citation
        and Path(item.file).name == item.file
    )
    assert (item.sha256 is None) == (item.known_from is None)
    if item.sha256 is not None:
        assert set(item.sha256) <= set("0123456789abcdef")
        assert len(item.sha256) == 64 or f"-{item.sha256}." in item.file


def test_the_packages_ask_for_the_same_files():
    """File names that other packages look for themselves, in the versions that are installed."""
    from face_alignment.api import models_urls
    from pytorch_fid.inception import FID_WEIGHTS_URL
    from torchvision.models import AlexNet_Weights, VGG16_Weights

    assert CATALOGUE["inception_fid"].url == FID_WEIGHTS_URL
    assert CATALOGUE["lpips_alex"].url == AlexNet_Weights.IMAGENET1K_V1.url
    assert CATALOGUE["lpips_vgg"].url == VGG16_Weights.IMAGENET1K_V1.url
    assert CATALOGUE["face_alignment"].url == models_urls["2DFAN-4"]
