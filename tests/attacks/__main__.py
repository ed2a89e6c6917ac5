"""Attack prunekd: `PYTHONPATH=tests python -m attacks --help`."""

import argparse
import random
import sys
import tempfile
from pathlib import Path

from attacks import flips, kills, races, storage
from attacks.known import known
from attacks.material import WRITERS, open_material
from attacks.results import table

ATTACKS = {"kills": kills.attack, "races": races.attack, "flips": flips.attack, "storage": storage.attack}


def main() -> int:
    """Run the attacks asked for; 1 if anything went wrong that is not known."""
    parser = argparse.ArgumentParser(prog="attacks", description="Attack every verb and every file of prunekd.")
    parser.add_argument("attacks", nargs="*", help=f"any of {', '.join(ATTACKS)} [default: all]")
    parser.add_argument("--all", action="store_true", help="every operation and many bytes of every file; takes long")
    parser.add_argument("--sample", type=int, default=2, help="how many of each, without --all [default: 2]")
    parser.add_argument("--verbs", default=",".join(WRITERS), help="comma-separated [default: all]")
    parser.add_argument("--seed", type=int, default=0, help="of the sample [default: 0]")
    parser.add_argument("--work", type=Path, help="folder for the material, kept [default: a temporary one]")
    parser.add_argument("--out", type=Path, help="write the table and what went wrong to this file too")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="attacks-") as scratch:
        material = open_material((asked.work or Path(scratch, "material")).absolute())
        tallies, lines = [], []
        for name in asked.attacks or ATTACKS:
            rng = random.Random(asked.seed)
            work = Path(scratch, "work")
            for tally in ATTACKS[name](
                material, work, asked.verbs.split(","), None if asked.all else asked.sample, rng
            ):
                tallies.append(tally)
                counts = ", ".join(f"{count} {outcome}" for outcome, count in tally.counts.items())
                print(f"{tally.attack} {tally.verb} {tally.file}: {counts}", file=sys.stderr, flush=True)
                for wrong in tally.wrong:
                    lines.append(f"{tally.verb} {tally.file}: {wrong}{' (known)' if known(tally, wrong) else ''}")
                    print(f"  {lines[-1]}", file=sys.stderr, flush=True)
    text = "\n".join([table(tallies), "", *lines])
    print(text)
    if asked.out:
        asked.out.write_text(text + "\n")
    return int(any(not line.endswith("(known)") for line in lines))


if __name__ == "__main__":
    sys.exit(main())
