"""Splits a domain into a source and a target with other items: two clusters of the vectors of their texts.

    recbole-xfer prepare unisrec --input scientific-mm --name Scientific --output pictures
    python -m benchmarks.studies.halves --data_path=pictures --dataset=Scientific

writes Scientific-source, which has the larger cluster, and Scientific-target. A user's interactions are split, too.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from sklearn.cluster import KMeans

from benchmarks.studies.noise import read
from recbole_xfer.data.atomic import read_atomic_file
from recbole_xfer.data.atomic_writer import write_domain

SEED = 0
PARTS = ("source", "target")


def clusters(vectors: np.ndarray) -> np.ndarray:
    """Returns the number of each item's cluster, [N]: 0 in the larger one, 1 in the other."""
    found = KMeans(len(PARTS), n_init=10, random_state=SEED).fit_predict(vectors - vectors.mean(axis=0))
    return found if (found == 0).sum() >= (found == 1).sum() else 1 - found


def main() -> None:
    """Writes the two domains."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data_path", type=Path, default=Path("dataset"))
    parser.add_argument("--dataset", required=True)
    options = parser.parse_args()
    name, folder = options.dataset, options.data_path / options.dataset
    rows, items = read(folder / f"{name}.inter"), read_atomic_file(folder / f"{name}.item")
    tables = {path.name.split(".")[1]: pq.read_table(path) for path in folder.glob(f"{name}.*.parquet")}
    texts = tables["text"]
    part = clusters(np.stack(texts["vector"].to_numpy()))
    for number, suffix in enumerate(PARTS):
        own, copy = texts["item_id"].filter(pa.array(part == number)).to_pylist(), f"{name}-{suffix}"
        kept = rows[rows["item_id"].isin(own)].assign(timestamp=lambda some: range(len(some)))
        write_domain(options.data_path, copy, kept, items[items["item_id"].isin(own)])
        for modality, table in tables.items():
            some = table.filter(pc.is_in(table["item_id"], pa.array(own)))
            pq.write_table(some, options.data_path / copy / f"{copy}.{modality}.parquet")
        print(options.data_path / copy)


if __name__ == "__main__":
    main()
