"""Print pip constraints: what prunekd and its tests depend on, at the lowest versions that setup.py allows."""

import ast
from pathlib import Path

SETUP = Path(__file__).parent.parent / "setup.py"


def lowest(setup: str) -> list[str]:
    """Turn every `name>=version` of CORE and EXTRAS["test"] into `name==version`.

    Raises:
        ValueError: a requirement that has no lower bound, or more than one.
    """
    lists = {
        node.targets[0].id: ast.literal_eval(node.value)
        for node in ast.parse(setup).body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
        if node.targets[0].id in ("CORE", "EXTRAS")
    }
    found = []
    for requirement in lists["CORE"] + lists["EXTRAS"]["test"]:
        name, bound, version = requirement.partition(">=")
        if not bound or "," in version:
            raise ValueError(f"setup.py asks for {requirement!r}; write it as NAME>=VERSION, so that it can be tested")
        found.append(f"{name}=={version}")
    return found


if __name__ == "__main__":
    print("\n".join(lowest(SETUP.read_text(encoding="utf-8"))))
