"""Explains a ranking: the user's history, the route of every block, and the attention of the last item.

Reads the parameters of a finished run. Shows the routes of RETR's Figure 4; compares attention with plain attention,
where Figure 5 compares gradients.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure

from recbole_xfer.data.atomic import AtomicFormat, read_item_column
from recbole_xfer.data.dataset import TransferDataset
from recbole_xfer.errors import XferError, did_you_mean
from recbole_xfer.experiment import Experiment, load
from recbole_xfer.files import replacing
from recbole_xfer.hooks import hooks_of
from recbole_xfer.report.page import Section, write_page

TITLE_LENGTH = 60
"""Maximum number of characters of a shown title."""


@dataclass(frozen=True)
class Explanation:
    """How a run ranks for one user.

    Attributes:
        label: of the run, such as ``RETR`` or ``RETR (plain attention)``.
        tokens: of the history's L items, oldest first, followed by the held-out item.
        titles: of the history's L items, oldest first; the token of an item without a text.
        routes: 1 where a block keeps an item on the pathway, [blocks, L]; no rows without a pathway.
        attention: of the last item to each item in the last block, mean over heads, [L].
        target: title of the held-out item.
        ranked: titles of the items with the highest scores, best first.
        rank: of the held-out item among all items, from 1.
    """

    label: str
    user: str
    tokens: list[str]
    titles: list[str]
    routes: np.ndarray
    attention: np.ndarray
    target: str
    ranked: list[str]
    rank: int

    @property
    def without_query(self) -> bool:
        """Whether the last block leaves the last item off the route, and its query zero: it attends to all alike."""
        return len(self.routes) > 0 and not self.routes[-1, -1] and np.ptp(self.attention) < 1e-6


def explain(run: str | Path, user: str, other: str | Path | None = None) -> list[Explanation]:
    """Explains how a run ranks for a user's test target, and optionally how another run on the same data does.

    Args:
        run: folder of a finished run of RETR, UniSRec, XRETR or XSASRec.
        user: the user's token.
        other: folder of another run, such as one with ``pathway: False``.

    Raises:
        XferError: if a model cannot be explained, the user has no test target, or the runs use different items.
    """
    explanations = [_explain(load(folder, {"show_progress": False}), user) for folder in (run, other) if folder]
    if any(each.tokens != explanations[0].tokens for each in explanations):
        raise XferError(
            f"{run} and {other} use different items of the user '{user}'. "
            f"Choose runs with the same data, eval_args and MAX_ITEM_LIST_LENGTH."
        )
    return explanations


@torch.no_grad()
def _explain(experiment: Experiment, user: str) -> Explanation:
    model, dataset = experiment.model, experiment.test_data._dataset
    if not hooks_of(model).explainable:
        raise XferError(f"{experiment.config['model']} cannot be explained; RETR, UniSRec, XRETR and XSASRec can.")
    row = dataset[_row_of(dataset, user)].to(experiment.config["device"])
    items = row[model.ITEM_SEQ][:, : int(row[model.ITEM_SEQ_LEN])]  # [1, L]
    inspection = model.inspect(items)
    scores = model.full_sort_predict(row).view(-1)
    scores[0] = -torch.inf
    target = int(row[model.ITEM_ID])
    titles = _titles(experiment)
    return Explanation(
        label=experiment.config["model"] + ("" if len(inspection.routes) else " (plain attention)"),
        user=user,
        tokens=dataset.id2token(dataset.iid_field, [*items[0].tolist(), target]).tolist(),
        titles=[titles[item] for item in items[0].tolist()],
        routes=inspection.routes.cpu().numpy(),
        attention=inspection.attention.cpu().numpy(),
        target=titles[target],
        ranked=[titles[item] for item in scores.topk(min(5, len(scores) - 1)).indices.tolist()],
        rank=int((scores > scores[target]).sum()) + 1,
    )


def _row_of(dataset: TransferDataset, user: str) -> np.ndarray:
    """The last test row of a user."""
    tokens = dataset.field2token_id[dataset.uid_field]
    if user not in tokens:
        raise XferError(f"The user '{user}' is not in {dataset.dataset_name}{did_you_mean(user, tokens)}")
    rows = np.flatnonzero(dataset.inter_feat[dataset.uid_field].numpy() == tokens[user])
    if not len(rows):
        raise XferError(f"The user '{user}' has too few interactions for a test target. Choose another user.")
    return rows[-1:]


def _titles(experiment: Experiment) -> list[str]:
    """The title of each item id: its shortened text, or else its token."""
    dataset = experiment.dataset
    names = [str(token) for token in dataset.field2id_token[dataset.iid_field]]
    for domain in dataset.domains:
        path = dataset.root / domain / f"{domain}.item"
        texts = read_item_column(path, "text", AtomicFormat.of(experiment.config))
        if texts is None:
            continue
        prefix = f"{domain}/" if len(dataset.domains) > 1 else ""
        known = dataset.field2token_id[dataset.iid_field]
        for token, text in texts.dropna().items():
            if prefix + token in known:
                names[known[prefix + token]] = _short(text)
    return names


def _short(text: str) -> str:
    return text if len(text) <= TITLE_LENGTH else text[: TITLE_LENGTH - 1].rstrip() + "…"


def draw(explanations: Sequence[Explanation]) -> Figure:
    """Draws one row per item, oldest on top; one column per block's route and per run's attention, all on one scale."""
    length = len(explanations[0].titles)
    routes = [(number, route) for e in explanations for number, route in enumerate(e.routes, start=1)]
    widths = [1] * len(routes) + [3] * len(explanations)
    figure = Figure(figsize=(5 + 0.5 * sum(widths), 1.4 + 0.28 * length), layout="constrained")
    axes = figure.subplots(1, len(widths), sharey=True, squeeze=False, width_ratios=widths)[0]
    for axis, (number, route) in zip(axes, routes, strict=False):
        kept = np.flatnonzero(route)
        axis.scatter(np.zeros(len(kept)), kept, s=60, color="#2a4d7c")
        axis.set(xlabel=f"route,\nblock {number}", xlim=(-1, 1), xticks=[])
    highest = max(float(e.attention.max()) for e in explanations)
    for axis, e in zip(axes[len(routes) :], explanations, strict=True):
        bars = axis.barh(range(length), e.attention, color="#8fb4dc")
        axis.bar_label(bars, fmt="%.2f", fontsize=7, padding=2)
        axis.set(xlabel=f"attention of the last item,\n{e.label}", xlim=(0, 1.2 * highest), xticks=[])
    for axis in axes:
        axis.xaxis.set_label_position("top")
        axis.tick_params(length=0)
        axis.spines[:].set_visible(False)
        axis.hlines(np.arange(length - 1) + 0.5, *axis.get_xlim(), color="#e6e6e6", linewidth=0.8)
    axes[0].set_yticks(range(length), explanations[0].titles, fontsize=8)
    axes[0].set_ylim(length - 0.5, -0.5)
    figure.suptitle(f"User {explanations[0].user}, oldest item on top; next item: {explanations[0].target}", fontsize=9)
    return figure


def write(explanations: Sequence[Explanation], path: Path) -> list[Path]:
    """Writes an HTML page, and its figure as a PNG file next to it; returns both paths."""
    figure = draw(explanations)
    section = Section(
        sentences=[
            f"Held-out item: {explanations[0].target}",
            *(
                f"{e.label}: the last item is off the route of the last block. Its query is zero (Eq. 7), "
                f"and it attends to all items alike."
                for e in explanations
                if e.without_query
            ),
        ],
        columns=["model", "rank of the held-out item", "highest scores"],
        rows=[(e.label, f"{e.rank:,}", " · ".join(e.ranked)) for e in explanations],
        figure=figure,
    )
    paths = write_page(path.with_suffix(".html"), f"User {explanations[0].user}", [section])
    with replacing(path.with_suffix(".png")) as temporary:
        figure.savefig(temporary, dpi=150)
    return [*paths, path.with_suffix(".png")]
