"""Downloads from a local server with faults: each file is complete and right, or the error is a sentence."""

from __future__ import annotations

import gzip
import hashlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from recbole_xfer.errors import XferError
from recbole_xfer.prepare import download as module
from recbole_xfer.prepare.download import download
from tests.helpers.preparing import inter, prepare
from tests.prepare.test_amazon import PRODUCTS_2018, REVIEWS_2018, write

CONTENT = gzip.compress(bytes(range(256)) * 4000, compresslevel=0)


@dataclass
class Site:
    """A local server of files; the first requests can fail."""

    files: dict[str, bytes] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    version: str = '"1"'
    ranges: bool = True
    requests: list[tuple[str, str | None]] = field(default_factory=list)
    address: str = ""


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setattr(module, "PAUSES", (0, 0))
    site = Site()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            site.requests.append((self.path, self.headers["Range"]))
            fault = site.faults.pop(0) if site.faults else ""
            content = site.files.get(self.path)
            if fault.isdigit() or content is None:
                self.send_error(int(fault or 404))
                return
            start = 0
            if self.headers["Range"] and site.ranges and self.headers["If-Range"] == site.version:
                start = int(self.headers["Range"].removeprefix("bytes=").removesuffix("-"))
                if start >= len(content):
                    self.send_response(416)
                    self.send_header("Content-Range", f"bytes */{len(content)}")
                    self.end_headers()
                    return
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(content) - start))
            self.send_header("ETag", site.version)
            self.end_headers()
            rest = content[start:]
            self.wfile.write(rest[: len(rest) // 2] if fault == "cut" else rest)

        def log_message(self, *words: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    site.address = f"http://127.0.0.1:{server.server_address[1]}"
    yield site
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_cut_download_continues_where_it_ended(site: Site, tmp_path: Path) -> None:
    site.files["/a.gz"], site.faults = CONTENT, ["cut", "503", "cut"]
    with pytest.raises(XferError, match=r"a\.gz cannot be downloaded: .* Run the command again to continue"):
        download(f"{site.address}/a.gz", tmp_path, {})
    path = download(f"{site.address}/a.gz", tmp_path, {})
    assert path.read_bytes() == CONTENT
    half = len(CONTENT) // 2
    assert [given for _, given in site.requests] == [
        None, f"bytes={half}-", f"bytes={half}-", f"bytes={half + (len(CONTENT) - half) // 2}-",
    ]  # fmt: skip
    assert [file.name for file in tmp_path.glob("[!.]*")] == ["a.gz"]
    download(f"{site.address}/a.gz", tmp_path, {})
    assert len(site.requests) == 4  # a complete file is not requested again


@pytest.mark.parametrize("change", ["version", "no ranges", "shorter"])
def test_another_version_begins_again(site: Site, tmp_path: Path, change: str) -> None:
    site.files["/a.gz"], site.faults = CONTENT, ["cut", "503", "503"]
    with pytest.raises(XferError):
        download(f"{site.address}/a.gz", tmp_path, {})
    site.files["/a.gz"] = gzip.compress(b"new" if change == "shorter" else b"new" * 10**6)
    site.version = '"2"'
    site.ranges = change != "no ranges"
    assert gzip.decompress(download(f"{site.address}/a.gz", tmp_path, {}).read_bytes()).startswith(b"new")


def test_a_complete_part_is_only_checked(site: Site, tmp_path: Path) -> None:
    site.files["/a.gz"] = CONTENT
    (tmp_path / "a.gz.part").write_bytes(CONTENT)
    (tmp_path / "a.gz.part.version").write_text(site.version)
    assert download(f"{site.address}/a.gz", tmp_path, {}).read_bytes() == CONTENT
    (tmp_path / "a.gz").unlink()
    (tmp_path / "a.gz.part").write_bytes(CONTENT + b"more")
    (tmp_path / "a.gz.part.version").write_text(site.version)
    assert download(f"{site.address}/a.gz", tmp_path, {}).read_bytes() == CONTENT


def test_wrong_content_is_removed(site: Site, tmp_path: Path) -> None:
    site.files = {"/a.gz": b"<html>Sign in</html>", "/b.csv": b"x", "/c.gz": CONTENT[:-9]}
    with pytest.raises(XferError, match=r"The downloaded file a\.gz is wrong: Not a gzipped file"):
        download(f"{site.address}/a.gz", tmp_path, {})
    with pytest.raises(XferError, match=r"c\.gz is wrong: Compressed file ended"):
        download(f"{site.address}/c.gz", tmp_path, {})
    with pytest.raises(XferError, match=r"b\.csv is wrong: its SHA-256 is .*, not 00"):
        download(f"{site.address}/b.csv", tmp_path, {"b.csv": "00"})
    assert not [path for path in tmp_path.iterdir() if not path.name.startswith(".")]
    digest = hashlib.sha256(b"x").hexdigest().upper()
    assert download(f"{site.address}/b.csv", tmp_path, {"b.csv": digest}).read_bytes() == b"x"


def test_a_file_that_the_server_does_not_have(site: Site, tmp_path: Path) -> None:
    with pytest.raises(XferError, match=r"no\.gz: the server answers 404 Not Found"):
        download(f"{site.address}/no.gz", tmp_path, {})
    assert len(site.requests) == 1
    with pytest.raises(XferError, match="cannot be downloaded: .*refused"):
        download("http://127.0.0.1:9/a.gz", tmp_path, {})


@pytest.mark.parametrize("edition", ["2018", "2023"])
def test_a_category_is_downloaded_and_prepared(site: Site, tmp_path: Path, edition: str) -> None:
    metadata = write(tmp_path / "meta.gz", PRODUCTS_2018).read_bytes()
    csv = "user_id,parent_asin,rating,timestamp\nA1,B000000001,5.0,1588687728923\n"
    site.files = {
        "/v/categoryFilesSmall/Tea_5.json.gz": write(tmp_path / "r.gz", REVIEWS_2018).read_bytes(),
        "/v/metaFiles2/meta_Tea.json.gz": metadata,
        "/v/benchmark/5core/rating_only/Tea.csv.gz": write(tmp_path / "c.gz", csv).read_bytes(),
        "/v/raw/meta_categories/meta_Tea.jsonl.gz": metadata,
    }
    all_ratings = "A1V6B6TNIC10QE,B000000001,5.0,1588687728\n" * 2
    site.files["/v/categoryFilesSmall/Tea.csv"] = all_ratings.encode()
    header = "user_id,parent_asin,rating,timestamp\n"
    site.files["/v/benchmark/0core/rating_only/Tea.csv.gz"] = gzip.compress((header + all_ratings).encode())
    for subset, count in {"5core": {"2018": 3, "2023": 1}[edition], "ratings": 2}.items():
        [folder] = prepare(
            "amazon", tmp_path / "out", "--category", "Tea", "--download", "--edition", edition, "--subset", subset,
            "--address", f"{site.address}/v/", "--downloads", tmp_path / "raw",
        )  # fmt: skip
        assert folder.name == "Tea" and len(inter(folder)) == count
    assert len(site.requests) == 3  # the metadata once
