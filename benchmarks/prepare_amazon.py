"""Measures `recbole-xfer prepare amazon` on generated files in the layout of Amazon 2018, beside plain readers.

    python -m benchmarks.prepare_amazon --ratings=30_000_000 --items=2_000_000
    python -m benchmarks.prepare_amazon --ratings=1_000_000 --items=100_000 --folder=/tmp/files

Prints one JSON object: of the preparation and of each reader the seconds, the seconds of all cores together and the
peak memory (MB), each in a process of its own, on Linux. The readers decompress and parse both files and keep nothing.
"""

from __future__ import annotations

import argparse
import gzip
import json
import multiprocessing
import re
import sys
import tempfile
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow
import pyarrow.csv
import pyarrow.json

from recbole_xfer.prepare.amazon import prepare_amazon

SEED = 0
CHUNK = 2**20
RATINGS_PER_USER = 2.5
WORDS = 20_000
FIRST, LAST = 1_000_080_000, 1_538_352_000  # September 2001 and October 2018, in seconds of ten digits
READ_BLOCK = 2**24
LETTERS = np.frombuffer(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789", np.uint8)


def write_files(folder: Path, ratings: int, items: int) -> tuple[Path, Path]:
    """Writes `Large.csv` and `meta_Large.json.gz`, unless the folder has them; returns their paths."""
    csv, metadata = folder / f"Large-{ratings}.csv", folder / f"meta_Large-{items}.json.gz"
    rng = np.random.default_rng(SEED)
    asins = _ids(rng, b"B0", items, 10)
    if not csv.exists():
        _write_ratings(csv, rng, asins, ratings)
    if not metadata.exists():
        _write_metadata(metadata, np.random.default_rng(SEED + 1), asins)
    return csv, metadata


def _ids(rng: np.random.Generator, prefix: bytes, count: int, length: int) -> np.ndarray:
    """Ids as bytes [count, length]: the prefix, random letters, and the number in base 36, so that each is unique."""
    ids = LETTERS[rng.integers(0, 36, (count, length), np.uint8)]
    ids[:, : len(prefix)] = np.frombuffer(prefix, np.uint8)
    number = np.arange(count)
    for place in range(6):
        ids[:, length - 1 - place] = LETTERS[number % 36]
        number //= 36
    return ids


def _write_ratings(path: Path, rng: np.random.Generator, asins: np.ndarray, ratings: int) -> None:
    """Lines of item, user, rating and time. Few users rate much and few items are rated often."""
    count = int(ratings / RATINGS_PER_USER)
    users = _ids(rng, b"A", count, 14)
    with path.open("wb") as file:
        for start in range(0, ratings, CHUNK):
            rows = min(CHUNK, ratings - start)
            line = np.full((rows, 41), ord(","), np.uint8)
            line[:, :10] = asins[(len(asins) * rng.random(rows) ** 3).astype(np.int64)]
            line[:, 11:25] = users[(count * rng.random(rows) ** 2).astype(np.int64)]
            line[:, 26:29] = np.frombuffer(b"1.02.03.04.05.0", np.uint8).reshape(5, 3)[rng.integers(0, 5, rows)]
            days = rng.integers(FIRST // 86400, LAST // 86400, rows) * 86400
            line[:, 30:40] = np.frombuffer(days.astype("S10").tobytes(), np.uint8).reshape(rows, 10)
            line[:, 40] = ord("\n")
            file.write(line.tobytes())


def _write_metadata(path: Path, rng: np.random.Generator, asins: np.ndarray) -> None:
    """Records of about 1,800 bytes, the size of real ones."""
    words = np.array(["".join(map(chr, word)) for word in LETTERS[rng.integers(0, 26, (WORDS, 6))].tolist()])
    ids = [row.tobytes().decode() for row in asins]
    with gzip.open(path, "wt", compresslevel=1, encoding="utf-8") as file:
        for start in range(0, len(ids), 2**14):
            part = ids[start : start + 2**14]
            chosen = words[(WORDS * rng.random((len(part), 150)) ** 3).astype(np.int64)].tolist()
            related = rng.integers(0, len(ids), (len(part), 20)).tolist()
            cents = rng.integers(99, 99_999, len(part)).tolist()
            for asin, text, others, price in zip(part, chosen, related, cents, strict=True):
                record = {
                    "category": ["Large", f"{text[0][:1]} &amp; {text[1][:1]}", f"{text[0][:2]} {text[1][:1]}"],
                    "description": [" ".join(text[20:90])], "title": " ".join(text[3:13]), "brand": text[13],
                    "also_buy": [ids[other] for other in others[:12]], "feature": [" ".join(text[90:])],
                    "also_view": [ids[other] for other in others[12:]], "main_cat": "Large", "asin": asin,
                    "price": f"${price / 100:.2f}" if price % 3 else "",
                    "imageURL": [f"https://images.example/I/{asin}._SX65_.jpg"],
                    "imageURLHighRes": [f"https://images.example/I/{asin}.jpg"],
                }  # fmt: skip
                file.write(json.dumps(record) + "\n")


def read_with_pyarrow(csv: Path, metadata: Path) -> None:
    """Reads both files with pyarrow's streaming readers, which parse in several threads; keeps nothing."""
    columns = pyarrow.csv.ReadOptions(block_size=READ_BLOCK, column_names=["item", "user", "rating", "time"])
    for _ in pyarrow.csv.open_csv(csv, columns):
        pass
    with pyarrow.CompressedInputStream(pyarrow.OSFile(str(metadata)), "gzip") as file:
        for _ in pyarrow.json.open_json(file, pyarrow.json.ReadOptions(block_size=READ_BLOCK)):
            pass


def read_with_pandas(csv: Path, metadata: Path) -> None:
    """Reads both files with pandas in parts; keeps nothing."""
    for _ in pd.read_csv(csv, names=["item", "user", "rating", "time"], chunksize=CHUNK):
        pass
    with pd.read_json(metadata, lines=True, chunksize=2**15) as parts:
        for _ in parts:
            pass


def decompress(csv: Path, metadata: Path) -> None:
    """Reads the bytes of both files."""
    with csv.open("rb") as plain, gzip.open(metadata, "rb") as compressed:
        for file in (plain, compressed):
            while file.read(READ_BLOCK):
                pass


def prepare(csv: Path, metadata: Path) -> None:
    """Prepares the domain."""
    with tempfile.TemporaryDirectory(dir=csv.parent) as output:
        print(prepare_amazon(Path(output), [csv], metadata, name="Large"), file=sys.stderr)


READERS = (decompress, read_with_pyarrow, read_with_pandas, prepare)


def measured(function: Callable[[Path, Path], None], csv: Path, metadata: Path) -> dict[str, float]:
    """Seconds and peak memory of a call in a new process."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_measure, args=(function, csv, metadata, sender))
    process.start()
    sender.close()
    try:
        return receiver.recv()
    finally:
        process.join()


def _measure(function: Callable[[Path, Path], None], csv: Path, metadata: Path, sender: Connection) -> None:
    start = time.perf_counter()
    function(csv, metadata)
    seconds, cpu = time.perf_counter() - start, time.process_time()
    [peak] = re.findall(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())  # of this process alone
    sender.send({"seconds": round(seconds, 1), "cpu_seconds": round(cpu, 1), "peak_mb": int(peak) // 1024})


def main() -> None:
    """Generates the files, measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--ratings", type=int, default=30_000_000, help="lines of Large.csv")
    parser.add_argument("--items", type=int, default=2_000_000, help="lines of meta_Large.json.gz")
    parser.add_argument(
        "--folder", type=Path, help="keep the files here, for several runs (default: a temporary folder)"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        files = write_files(folder, options.ratings, options.items)
        results = {function.__name__: measured(function, *files) for function in READERS}
        sizes = {path.name: path.stat().st_size for path in files}
        print(json.dumps({"bytes": sizes, **results}, indent=1))


if __name__ == "__main__":
    main()
