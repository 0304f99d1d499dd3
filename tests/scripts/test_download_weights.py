"""The catalogue of public weights, and downloads from a local server: verified, never incomplete, one sentence on
failure.
"""

import hashlib
import http.server
import threading
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from configs.schema import Config
from scripts.core import runtime
from scripts.stages.download_weights import download_weights, fetch, list_catalogue
from stylegan2.public import catalogue
from stylegan2.public.catalogue import CATALOGUE, Entry, path_of, state_of
from stylegan2.weights import WeightsError

CONTENT = bytes(range(256)) * 400
DIGEST = hashlib.sha256(CONTENT).hexdigest()


class Server(http.server.BaseHTTPRequestHandler):
    """/net.pt is the file, /short breaks off, /page is HTML, all else is missing."""

    def do_GET(self):
        if self.path not in ("/net.pt", "/short", "/page"):
            return self.send_error(404)
        content = b"<!DOCTYPE html>" if self.path == "/page" else CONTENT
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[:30_000] if self.path == "/short" else content)

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
    return Entry("net.pt", "a network", f"{server}/net.pt", "MIT", "Nobody 2024", DIGEST)


@pytest.fixture
def own_folder(entry, tmp_path, monkeypatch):
    """A folder of weights with the entry "net" in the catalogue, and an empty hub cache."""
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setattr(catalogue, "CATALOGUE", {**CATALOGUE, "net": entry})
    monkeypatch.setenv(catalogue.FOLDER, str(tmp_path / "own"))
    (tmp_path / "own").mkdir()
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    return tmp_path / "own"


@pytest.mark.parametrize("digest", [DIGEST, DIGEST[:8], None])
def test_a_file_is_fetched_and_verified(entry, tmp_path, digest):
    target = tmp_path / "new" / "net.pt"
    fetch(replace(entry, sha256=digest), target)
    assert target.read_bytes() == CONTENT and list(target.parent.iterdir()) == [target]


@pytest.mark.parametrize(
    ("path", "digest", "words"),
    [
        ("/net.pt", "0" * 64, "another file than the one in the catalogue"),
        ("/net.pt", "abcd", "another file than the one in the catalogue"),
        ("/short", DIGEST, "another file than the one in the catalogue"),
        ("/absent", DIGEST, "cannot be fetched .*404"),
        ("/page", None, "web page instead of net.pt"),
    ],
)
def test_a_failed_download_leaves_nothing_and_says_what_to_do(entry, tmp_path, path, digest, words):
    with pytest.raises(WeightsError, match=rf"{words}.*put it at .*TALKING_HEADS_WEIGHTS=FOLDER") as caught:
        fetch(replace(entry, url=entry.url.replace("/net.pt", path), sha256=digest), tmp_path / "net.pt")
    assert "\n" not in str(caught.value) and not list(tmp_path.iterdir())


def test_being_offline_is_reported_in_one_sentence(entry, tmp_path):
    gone = replace(entry, url="http://127.0.0.1:9/net.pt")  # no server runs at this port
    with pytest.raises(
        WeightsError, match=r"cannot be fetched.*offline.*net\.pt.*TALKING_HEADS_WEIGHTS=FOLDER"
    ) as caught:
        fetch(gone, tmp_path / "net.pt")
    assert "\n" not in str(caught.value) and not list(tmp_path.iterdir())


def test_the_script_fetches_once_lists_and_refuses_a_wrong_file(own_folder, tmp_path, capsys):
    run = runtime.start(Config(results_dir=str(tmp_path), device="cpu"), quiet=True)
    assert download_weights(Config(entry="net"), run) == own_folder / "net.pt"
    printed = capsys.readouterr().out
    assert DIGEST in printed and "MIT" in printed and "Nobody 2024" in printed
    (own_folder / "net.pt").write_bytes(b"mine")
    with pytest.raises(WeightsError, match="expected"):
        download_weights(Config(entry="net"), run)
    assert (own_folder / "net.pt").read_bytes() == b"mine"
    with pytest.raises(WeightsError, match="no 'nothing' in the catalogue"):
        download_weights(Config(entry="nothing"), run)
    assert download_weights(Config(), run) is None
    assert "e4e_ffhq" in capsys.readouterr().out


def test_the_own_folder_comes_before_the_hub_cache(own_folder, tmp_path, capsys, monkeypatch):
    hub = tmp_path / "hub" / "checkpoints"
    assert path_of("net") == own_folder / "net.pt" and state_of("net") == "missing"
    (hub / "net.pt").write_bytes(CONTENT)
    assert path_of("net") == hub / "net.pt" and state_of("net") == f"verified {DIGEST[:12]}"
    (own_folder / "net.pt").write_bytes(b"other")
    assert path_of("net") == own_folder / "net.pt" and state_of("net").startswith("WRONG HASH")
    assert path_of("inception_fid") == own_folder / CATALOGUE["inception_fid"].file
    (own_folder / CATALOGUE["psp_ffhq"].file).write_bytes(b"x")
    list_catalogue()
    printed = capsys.readouterr().out
    assert all(name in printed for name in CATALOGUE)
    assert "there, hash unknown" in printed and "sha256 unknown" in printed
    monkeypatch.delenv(catalogue.FOLDER)
    assert path_of("ir_se50") == hub / CATALOGUE["ir_se50"].file


@pytest.mark.parametrize("name", CATALOGUE)
def test_entries_are_complete(name):
    """A short hash is that of the file's name."""
    item = CATALOGUE[name]
    assert (
        item.url.startswith("https://")
        and item.licence
        and item.citation
        and Path(item.file).name == item.file
    )
    if item.sha256 is not None:
        assert set(item.sha256) <= set("0123456789abcdef")
        assert len(item.sha256) == 64 or f"-{item.sha256}." in item.file


def test_the_packages_ask_for_the_same_files():
    """URLs equal those of the installed packages, which look for the files themselves."""
    from face_alignment.api import models_urls
    from pytorch_fid.inception import FID_WEIGHTS_URL
    from torchvision.models import AlexNet_Weights, VGG16_Weights

    assert CATALOGUE["inception_fid"].url == FID_WEIGHTS_URL
    assert CATALOGUE["lpips_alex"].url == AlexNet_Weights.IMAGENET1K_V1.url
    assert CATALOGUE["lpips_vgg"].url == VGG16_Weights.IMAGENET1K_V1.url
    assert CATALOGUE["face_alignment"].url == models_urls["2DFAN-4"]
