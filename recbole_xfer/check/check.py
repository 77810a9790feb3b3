"""Checks one or several domains, and says what they share and which models can be trained on them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from recbole.utils import get_model
from tqdm import tqdm

from recbole_xfer.check.domain import Domain, Facts
from recbole_xfer.check.suspicions import suspicions
from recbole_xfer.config import properties
from recbole_xfer.config.config import XferConfig
from recbole_xfer.config.values import join_domains
from recbole_xfer.data.domain_folder import command
from recbole_xfer.errors import XferError
from recbole_xfer.hooks import hooks_of
from recbole_xfer.log import progress_bar


@dataclass(frozen=True)
class Shared:
    """What two domains have in common."""

    domains: tuple[str, str]
    users: int
    items: int


@dataclass(frozen=True)
class Use:
    """What a model can do with the domains.

    Attributes:
        model: its name.
        domains: those that it can be trained on, separately or joined; none where it cannot.
        words: what it reads, or what it lacks.
    """

    model: str
    domains: Sequence[str]
    words: str


@dataclass(frozen=True)
class Check:
    """The result of a check.

    Attributes:
        domains: as read.
        facts: of each domain.
        suspicions: what is suspicious in each domain, by its name.
        shared: for each pair of domains.
        common_users: users in at least two domains.
        uses: of each model.
    """

    domains: Sequence[Domain]
    facts: Sequence[Facts]
    suspicions: Mapping[str, Sequence[str]]
    shared: Sequence[Shared]
    common_users: int
    uses: Sequence[Use]

    def as_dict(self) -> dict[str, Any]:
        """The content of a json file."""
        examples = {domain.name: [asdict(example) for example in domain.examples()] for domain in self.domains}
        return {
            "domains": {
                facts.name: {
                    **asdict(facts),
                    "suspicions": list(self.suspicions[facts.name]),
                    "examples": [
                        {**item, "pictures": list(map(str, item["pictures"]))} for item in examples[facts.name]
                    ],
                }
                for facts in self.facts
            },
            "shared": [asdict(pair) for pair in self.shared],
            "common_users": self.common_users,
            "models": [asdict(use) for use in self.uses],
        }


def check(names: Sequence[str], keys: Mapping[str, Any] | None = None) -> Check:
    """Checks domains.

    Args:
        names: of the domains.
        keys: of the configuration, such as ``data_path`` and the names of columns.

    Raises:
        XferError: if a domain is named twice, or a file is missing or invalid.
    """
    if len(set(names)) < len(names):
        raise XferError(f"{' '.join(names)} has a domain twice. Name each domain once.")
    domains, facts, found = [], [], {}
    with progress_bar(total=len(names), leave=False) as bar:
        for name in names:
            _show(bar, name)
            domain = Domain.read(name, keys or {})
            domains.append(domain)
            facts.append(Facts.of(domain))
            found[name] = suspicions(domain)
            bar.update()
    shared = [_shared(first, second) for first, second in combinations(domains, 2)]
    users = Counter(user for domain in domains for user in domain.user.dropna().unique())
    common = sum(count > 1 for count in users.values())
    uses = [use_of(model, facts, common, domains[0].folder.parent) for model in properties.models()]
    return Check(domains, facts, found, shared, common, uses)


def _show(bar: tqdm, name: str) -> None:
    bar.set_description(f"checking {name}")


def _shared(first: Domain, second: Domain) -> Shared:
    users, items = (
        len(set(getattr(first, kind).dropna()) & set(getattr(second, kind).dropna())) for kind in ("user", "item")
    )
    return Shared((first.name, second.name), users, items)


def use_of(model: str, facts: Sequence[Facts], common_users: int, root: Path) -> Use:
    """Returns what a model can do with domains of these facts, whose folders are in ``root``."""
    names = [domain.name for domain in facts]
    hooks, joined = hooks_of(get_model(model)), join_domains(names)
    if hooks.needs_several_domains(XferConfig(model, joined)):
        if len(names) < 2:
            return Use(model, [], "needs several domains: check them together")
        return Use(model, names, f"joins domains, as {joined}; {common_users:,} users are in several")
    adapts = ", and can be pre-trained on other domains" if hooks.kept else ""
    if not hooks.reads_features:
        return Use(model, names, f"reads histories{adapts}")
    wanted = properties.defaults(model, joined).get("modalities")
    features = {domain.name: _features(domain, wanted) for domain in facts}
    able = [name for name, found in features.items() if found and (wanted is None or set(wanted) <= set(found))]
    if not able:
        lacking = "text" if any(domain.texts for domain in facts) else "item"
        remedy = f": `{command('encode', joined, root)}`" if lacking == "text" else ""
        return Use(model, [], f"needs {lacking} vectors{remedy}")
    read = dict.fromkeys(kind for name in able for kind in features[name])
    return Use(model, able, f"reads {', '.join(read)}{adapts}")


def _features(facts: Facts, wanted: Sequence[str] | None) -> list[str]:
    """The modalities of a domain that a model reads."""
    found = {"text": facts.text_vectors, "image": facts.image_vectors, "price": facts.prices}
    return [kind for kind, count in found.items() if count and (wanted is None or kind in wanted)]
