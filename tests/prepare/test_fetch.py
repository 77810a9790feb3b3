"""Fetching pictures: faults of a server never end the run, are listed, and are tried again by the next run."""

from __future__ import annotations

import io
import os
import threading
import time
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from PIL import Image

from recbole_xfer.cli.main import main
from recbole_xfer.data.atomic import read_atomic_file
from recbole_xfer.errors import XferError
from recbole_xfer.prepare import fetch
from recbole_xfer.prepare.fetch import Settings, fetch_pictures


def picture(size: tuple[int, int] = (40, 30), form: str = "JPEG", mode: str = "RGB") -> bytes:
    content = io.BytesIO()
    Image.new(mode, size, 120).save(content, form)
    return content.getvalue()


class Handler(BaseHTTPRequestHandler):
    """Answers by the first part of the path."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        server: Server = self.server  # type: ignore[assignment]
        with server.lock:
            server.seen[self.path] += 1
            server.agents.add(self.headers["User-Agent"])
            server.open += 1
            server.most_open = max(server.most_open, server.open)
        try:
            self.reply(self.path.split("/")[1], server.seen[self.path])
        finally:
            with server.lock:
                server.open -= 1

    def reply(self, kind: str, attempt: int) -> None:
        content = picture()
        if kind == "missing" or (kind == "busy" and attempt == 1):
            self.send(b"", 404 if kind == "missing" else 503)
        elif kind == "html":
            self.send(b"<html>Sign in</html>")
        elif kind in ("cut", "once-cut") and (kind == "cut" or attempt == 1):
            self.send(content[: len(content) // 2], length=len(content))
            self.close_connection = True
        elif kind == "truncated":
            self.send(content[:-10])
        elif kind == "slow":
            self.send(b"", length=len(content))
            for byte in content[:40]:
                time.sleep(0.1)
                self.wfile.write(bytes([byte]))
            self.close_connection = True
        elif kind == "moved":
            self.send(b"", 302, location="/good/moved.jpg")
        elif kind == "circle":
            self.send(b"", 302, location=self.path)
        elif kind == "large":
            self.send(picture((400, 200), "PNG"))
        elif kind == "png":
            self.send(picture(form="PNG", mode="L"))
        elif kind == "bomb":
            self.send(b"x" * 10_000)
        elif kind == "late":
            time.sleep(0.25)
            self.send(content)
        else:
            time.sleep(0.02)
            self.send(content)

    def send(self, content: bytes, status: int = 200, length: int | None = None, location: str | None = None) -> None:
        self.send_response(status)
        if location:
            self.send_header("Location", location)
        self.send_header("Content-Length", str(len(content) if length is None else length))
        self.end_headers()
        self.wfile.write(content)
        self.wfile.flush()

    def log_message(self, *_: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    """A local server that counts requests and open connections."""

    daemon_threads = True
    request_queue_size = 64  # of connections; the system drops others, and their clients wait for a second

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.lock, self.seen, self.agents = threading.Lock(), Counter(), set()
        self.open = self.most_open = 0

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request: object, client_address: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(fetch, "FIRST_PAUSE", 0.01)
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    with Server() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def domain(root: Path, rows: list[tuple[str, str]]) -> Path:
    folder = root / "D"
    folder.mkdir(exist_ok=True)
    lines = "".join(f"{item}\t{url}\n" for item, url in rows)
    (folder / "D.pictures").write_text(f"item_id:token\turl:token\n{lines}")
    return folder


def files(folder: Path) -> list[str]:
    root = folder / "images"
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())


TWICE = Settings(attempts=2, at_once=8)


class TestFaults:
    def test_each_fault_is_listed_and_none_ends_the_run(self, tmp_path: Path, server: Server) -> None:
        faults = {
            "missing": "status 404",
            "html": "not a picture, or of an unknown format",
            "cut": "the answer broke off: ",
            "truncated": "image file is truncated",
            "circle": "more than 5 redirects",
        }
        good = ["good", "busy", "once-cut", "moved"]
        rows = [(kind, f"{server.address}/{kind}/1.jpg") for kind in [*faults, *good]]
        rows += [("file", "file:///etc/passwd"), ("odd", "http://[odd"), ("gone", "http://127.0.0.1:9/x.jpg")]
        folder = domain(tmp_path, rows)
        fetch_pictures(folder, "D", TWICE)
        assert files(folder) == sorted(f"{kind}.jpg" for kind in good)
        failed = read_atomic_file(folder / "D.pictures.failed.tsv").set_index("item_id")
        assert set(failed.index) == {*faults, "file", "odd", "gone"}
        for kind, reason in faults.items():
            assert failed["reason"][kind].startswith(reason), failed["reason"][kind]
        assert failed["reason"]["file"] == "the address does not begin with http:// or https://"
        assert failed["reason"]["odd"].startswith("the address is invalid")
        assert failed["reason"]["gone"].startswith("no answer")
        assert server.seen["/missing/1.jpg"] == 1 and server.seen["/cut/1.jpg"] == 2  # a 404 is final
        assert sorted(os.listdir(folder)) == ["D.pictures", "D.pictures.failed.tsv", "images"]

    def test_a_picture_that_arrives_too_slowly(self, tmp_path: Path, server: Server) -> None:
        folder = domain(tmp_path, [("a", f"{server.address}/slow/1.jpg")])
        fetch_pictures(folder, "D", Settings(attempts=1, timeout=1))
        assert read_atomic_file(folder / "D.pictures.failed.tsv")["reason"].tolist() == ["too slow"]

    def test_the_next_run_fetches_only_what_is_missing(self, tmp_path: Path, server: Server) -> None:
        address = f"{server.address}/busy/1.jpg"
        folder = domain(tmp_path, [("a", f"{server.address}/good/1.jpg"), ("b", address)])
        fetch_pictures(folder, "D", Settings(attempts=1))
        assert files(folder) == ["a.jpg"] and (folder / "D.pictures.failed.tsv").is_file()
        fetch_pictures(folder, "D", Settings(attempts=1))
        assert files(folder) == ["a.jpg", "b.jpg"] and not (folder / "D.pictures.failed.tsv").exists()
        assert server.seen["/good/1.jpg"] == 1

    def test_too_many_bytes(self, tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(fetch, "MOST_BYTES", 5_000)
        folder = domain(tmp_path, [("a", f"{server.address}/bomb/1.jpg")])
        fetch_pictures(folder, "D", TWICE)
        assert "MiB" in read_atomic_file(folder / "D.pictures.failed.tsv")["reason"][0]

    def test_ids_that_cannot_be_names_of_files(self, tmp_path: Path, server: Server) -> None:
        ids = ["../a", "a/b", ".hidden", "é" * 150]
        folder = domain(tmp_path, [(item, f"{server.address}/good/1.jpg") for item in ids])
        fetch_pictures(folder, "D", TWICE)
        assert not files(folder) and not server.seen
        assert read_atomic_file(folder / "D.pictures.failed.tsv")["item_id"].tolist() == ids


class TestPoliteness:
    def test_connections_to_a_host_are_limited(self, tmp_path: Path, server: Server) -> None:
        folder = domain(tmp_path, [(f"i{number}", f"{server.address}/good/{number}.jpg") for number in range(40)])
        fetch_pictures(folder, "D", Settings(at_once=16, per_host=3))
        assert len(files(folder)) == 40
        assert 1 < server.most_open <= 3
        [agent] = server.agents
        assert agent.startswith("recbole-xfer/")

    def test_the_wait_for_a_connection_does_not_count_as_slow(self, tmp_path: Path, server: Server) -> None:
        folder = domain(tmp_path, [(f"i{number}", f"{server.address}/late/{number}.jpg") for number in range(12)])
        fetch_pictures(folder, "D", Settings(at_once=12, per_host=1, attempts=1, timeout=2))
        assert len(files(folder)) == 12

    def test_a_host_can_ask_for_a_pause(self, monkeypatch: pytest.MonkeyPatch) -> None:
        pauses: list[float] = []
        monkeypatch.setattr(time, "sleep", pauses.append)
        answers: list[object] = [fetch.TransientError("status 429", 7), fetch.TransientError("status 429", 10**6), b"x"]

        def answer(*_: object) -> object:
            found = answers.pop(0)
            if isinstance(found, Exception):
                raise found
            return found

        monkeypatch.setattr(fetch, "_get", answer)
        assert fetch._download(None, "http://h/", Settings()) == b"x"  # type: ignore[arg-type]
        assert pauses == [7, fetch.LONGEST_PAUSE]


class TestStoring:
    def test_large_pictures_are_scaled_and_small_ones_kept(self, tmp_path: Path, server: Server) -> None:
        rows = [(kind, f"{server.address}/{kind}/1") for kind in ("large", "png", "good")]
        folder = domain(tmp_path, rows)
        fetch_pictures(folder, "D", Settings(size=100))
        assert files(folder) == ["good.jpg", "large.jpg", "png.png"]
        with Image.open(folder / "images" / "large.jpg") as large:
            assert large.size == (200, 100) and large.format == "JPEG"
        assert (folder / "images" / "png.png").read_bytes() == picture(form="PNG", mode="L")

    def test_several_pictures_of_an_item(self, tmp_path: Path, server: Server) -> None:
        folder = domain(tmp_path, [("a.b", f"{server.address}/good/{number}") for number in range(6)])
        fetch_pictures(folder, "D", TWICE)
        assert files(folder) == [f"a.b/{number}.jpg" for number in (1, 2, 3, 4)]
        fetch_pictures(folder, "D", TWICE)
        assert sum(server.seen.values()) == 4

    def test_a_killed_run_leaves_no_half_picture(self, tmp_path: Path, server: Server) -> None:
        folder = domain(tmp_path, [("a", f"{server.address}/good/1.jpg")])
        leftover = folder / ".images.abcd1234" / "images"
        leftover.mkdir(parents=True)
        (leftover / "half").write_bytes(picture()[:10])
        fetch_pictures(folder, "D", TWICE)
        assert sorted(os.listdir(folder)) == ["D.pictures", "images"]


class TestInput:
    def test_command(self, tmp_path: Path, server: Server, capsys: pytest.CaptureFixture) -> None:
        folder = domain(tmp_path, [("a", f"{server.address}/good/1.jpg")])
        main(["fetch", "--dataset=D", f"--data_path={tmp_path}", "--size=64"])
        assert capsys.readouterr().out.strip() == str(folder / "images")

    def test_no_addresses(self, tmp_path: Path) -> None:
        with pytest.raises(XferError, match=r"D\.pictures does not exist"):
            fetch_pictures(tmp_path, "D")
        (tmp_path / "D.pictures").write_text("item_id:token\taddress:token\na\tb\n")
        with pytest.raises(XferError, match=r"has no column 'url' \(columns: item_id, address\)"):
            fetch_pictures(tmp_path, "D")

    def test_number_below_one(self) -> None:
        with pytest.raises(XferError, match="per_host=0 must be at least 1"):
            Settings(per_host=0)
