"""Recommends from the folder of this file, which `recbole-xfer export` wrote.

    python serve.py --history A B C --k 10

It needs numpy, pyarrow and onnxruntime, and uses faiss where it is installed. Copy it, or change it.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

Ranking = list[tuple[int, float]]
"""Rows of items with their scores, best first."""


def matrix(column: Any) -> np.ndarray:
    """A column of vectors as an array, [N, d]."""
    vectors = column.combine_chunks()
    return vectors.flatten().to_numpy().reshape(len(vectors), -1)


class Server:
    """The items, the user encoder and the index of an export."""

    def __init__(self, folder: Path) -> None:
        self.manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        table = pq.read_table(folder / "items.parquet")
        self.items = table["item_id"].to_pylist()
        self.row = {item: row for row, item in enumerate(self.items)}
        self.vectors = matrix(table["vector"])
        self.popularity = table["popularity"].to_numpy().astype(np.float32)
        self.domains = np.array(table["domain"]) if "domain" in table.column_names else None
        index = folder / "index.faiss"
        self.index: Any = None
        if index.exists() and find_spec("faiss"):
            import faiss

            self.index = faiss.read_index(str(index))
        self.encoder: Any = None
        self.users: dict[Any, np.ndarray] | None = None
        if (folder / "user_encoder.onnx").exists():
            import onnxruntime

            self.encoder = onnxruntime.InferenceSession(str(folder / "user_encoder.onnx"))
        else:
            users = pq.read_table(folder / "users.parquet")
            self.users = dict(zip(users["user_id"].to_pylist(), matrix(users["vector"]), strict=True))

    def encode(self, rows: Sequence[int]) -> np.ndarray:
        """The vector of a user [d] from the rows of the history's last items, oldest first."""
        ids = np.array([[row + 1 for row in rows]], dtype=np.int64)  # 0 is padding
        return self.encoder.run(None, {"item_ids": ids, "lengths": np.array([len(rows)], dtype=np.int64)})[0][0]

    def best(
        self, user: np.ndarray, k: int, seen: set[int], domain: str | None = None, repeated: Sequence[int] = ()
    ) -> Ranking:
        """The best k rows for a user's vector [d] and their scores, without seen ones; of one domain if it is given.

        Rows of the history that may be repeated have another score, which the model learned.
        """
        if self.index is not None and domain is None and not repeated:
            scores, rows = self.index.search(user[None], min(k + len(seen), len(self.items)))
            found = zip(rows[0], scores[0], strict=True)
            return [(row, score) for row, score in found if row >= 0 and row not in seen][:k]
        scores = self.vectors @ user
        scores[list(set(repeated))] += self.manifest["repeat_score"]
        return self.top(scores, k, seen, domain)

    def top(self, scores: np.ndarray, k: int, seen: set[int], domain: str | None = None) -> Ranking:
        """The k rows with the highest scores [N], without seen ones; of one domain if it is given."""
        scores = scores.copy()
        scores[list(seen)] = -np.inf
        if domain is not None:
            scores[self.domains != domain] = -np.inf
        rows = np.argpartition(-scores, min(k, len(scores)) - 1)[:k]
        rows = rows[np.argsort(-scores[rows], kind="stable")]
        return [(row, scores[row]) for row in rows if scores[row] > -np.inf]

    def recommend(
        self,
        history: Sequence[str] = (),
        user: str | None = None,
        k: int = 10,
        domain: str | None = None,
        keep_history: bool = False,
    ) -> tuple[list[tuple[str, float]], int]:
        """The best k items with their scores, best first, and the number of unknown items of the history.

        Items of the history are left out, unless it is kept. Without a known item or user, these are the most popular
        items with the number of their interactions.
        """
        rows = [self.row[item] for item in history if item in self.row]
        unknown, seen = len(history) - len(rows), set() if keep_history else set(rows)
        if self.domains is not None and self.manifest["histories_of_one_domain"] and rows:
            domain = self.domains[rows[-1]] if domain is None else domain
            rows = [row for row in rows if self.domains[row] == domain]
        if self.users is not None:
            vector, rows = self.users.get(user), []
        else:
            rows = rows[-self.manifest["longest_history"] :]
            vector = self.encode(rows) if rows else None
        if vector is None:
            found = self.top(self.popularity, k, seen, domain)
        else:
            found = self.best(vector, k, seen, domain, repeated=rows if keep_history else ())
        return [(self.items[row], float(score)) for row, score in found], unknown


def main() -> None:
    """Prints the best items for a history or a user, one a line."""
    parser = argparse.ArgumentParser(description="Recommends from an exported run.")
    parser.add_argument("--history", nargs="*", default=[], help="item ids, oldest first")
    parser.add_argument("--user", help="a user's id, for a model that knows users by their ids")
    parser.add_argument("--k", type=int, default=10, help="number of items (default 10)")
    parser.add_argument("--domain", help="rank the items of this domain only")
    parser.add_argument("--keep_history", action="store_true", help="rank the items of the history, too")
    options = parser.parse_args()
    server = Server(Path(__file__).resolve().parent)
    if options.domain is not None and (server.domains is None or options.domain not in server.domains):
        parser.error(f"the domain must be one of {', '.join(server.manifest['domains'])}")
    found, unknown = server.recommend(options.history, options.user, options.k, options.domain, options.keep_history)
    if unknown:
        print(f"# unknown items: {unknown}")
    for item, score in found:
        print(f"{item}\t{score:.6f}")


if __name__ == "__main__":
    main()
