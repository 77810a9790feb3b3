"""The verbs about transfer between domains: transfer, separability."""

from __future__ import annotations

import argparse
from pathlib import Path

from recbole_xfer.cli.results import add_result, add_study_options
from recbole_xfer.cli.verb import Parser, Verb, files, positive

FEATURES = ("text", "image", "price")


def add_transfer_options(parser: Parser) -> None:
    """Adds the options of transfer."""
    add = parser.add_argument
    add("-m", "--model", metavar="NAME", help="a model that can be adapted, such as ANT or UniSRec")
    add("--target", "-d", "--dataset", metavar="NAME", help="the target domain, or several joined by +")
    add(
        "--sources",
        nargs="+",
        default=[],
        metavar="NAME",
        help="domains to pre-train on: alone, together, each left out",
    )
    add("--adaptations", nargs="+", default=[], metavar="WAY", help="relearn, finetune, auto (default: all but auto)")
    add("--seeds", nargs="+", default=[], type=int, metavar="N", help="of each run (default: the key seed)")
    add_result(parser)
    add("--output", type=Path, metavar="FOLDER", help="also write transfer.md, .tex, .csv, .json; report draws it")
    add_study_options(parser)


def add_separability_options(parser: Parser) -> None:
    """Adds the options of separability."""
    add = parser.add_argument
    add(
        "domains", nargs="*", metavar="DOMAIN", help="at least two domains with item features (default: those of --run)"
    )
    add("--features", nargs="+", default=[], choices=FEATURES, metavar="NAME", help="text, image, price (default: all)")
    add("--run", dest="folder", metavar="FOLDER", help="of a run: also probe its vectors of items and users")
    add("--items", type=positive, default=2000, metavar="N", help="items and users of a domain, at most (default 2000)")
    add("--json", type=Path, metavar="FILE", help="also write everything as json")
    add("--output", type=Path, metavar="FOLDER", help="also write separability.html, .png and .pdf")


def transfer(options: argparse.Namespace, keys: dict[str, str]) -> None:
    """Runs a model from scratch and from each set of sources; prints the matrix and what to use."""
    from recbole_xfer.check.show import likeness_sentence
    from recbole_xfer.cli.tables import print_estimate, print_study
    from recbole_xfer.config.config import XferConfig
    from recbole_xfer.config.values import join_domains, split_domains
    from recbole_xfer.study.transfer import plan_transfer

    plan = plan_transfer(
        options.model, options.target, options.sources, options.adaptations, options.seeds, keys, files(options)
    )
    if options.dry_run:
        print_estimate(plan.study, options.workers)
        return
    study = plan.run(options.workers)
    config = XferConfig(overrides=plan.study.tables[0].rows[0].keys)
    sentence = likeness_sentence(config, dict.fromkeys(split_domains(join_domains(plan.sources))))
    if sentence:
        print(sentence)
    print_study(study, options.result, options.output, "transfer")
    study.check()


def separability(options: argparse.Namespace, keys: dict[str, str]) -> None:
    """Probes domains or a run; prints the accuracies and what they say."""
    from recbole_xfer.cli.tables import print_table, write_json
    from recbole_xfer.quick_start import separability
    from recbole_xfer.report.separability import write

    measured = separability(
        options.domains, options.features, options.folder, options.items, overrides=keys, config_files=files(options)
    )
    print_table(measured.layout().for_console())
    print("\n".join(measured.sentences()))
    write_json(measured, options.json)
    if options.output:
        print(f"Drawn in {', '.join(map(str, write(measured, options.output)))}")


VERBS = (
    Verb(
        "transfer",
        "run a model from scratch and from each set of sources, and say what to use",
        (
            "recbole-xfer transfer --model=ANT --target=Shop --sources Food Kitchen Home",
            "recbole-xfer transfer -m ANT --target=Shop --sources Food Home --seeds 1 2 --workers=2 --output=transfer",
            "recbole-xfer transfer -m UniSRec --target=Shop --sources Food Home --epochs=20 --dry-run",
        ),
        add_transfer_options,
        transfer,
    ),
    Verb(
        "separability",
        "measure how well domains, or a run's users and items, can be distinguished",
        (
            "recbole-xfer separability Food Kitchen Shop",
            "recbole-xfer separability Food Kitchen --features text price --output=separability",
            "recbole-xfer separability --run=saved/RecGURU-Food+Kitchen-1a2b3c4d --json=separability.json",
        ),
        add_separability_options,
        separability,
    ),
)
