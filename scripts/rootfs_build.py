"""Build a target of a Dockerfile without a container engine: on a bare Debian root, in a chroot (root, debootstrap).

    python scripts/rootfs_build.py docker/Dockerfile cpu /var/tmp/rootfs --run prunekd demo --out /runs/demo

Follows the instructions that our Dockerfile uses (FROM of a Debian image, ARG, ENV, COPY, RUN with bind mounts, USER,
WORKDIR, HEALTHCHECK) and refuses others. Every stage is a folder below the last argument. At the end the health check
is run as the image's user, and then the command given with --run. It is a proof that the install steps work from
nothing, not an engine: network, devices and clock are the host's.
"""

import argparse
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path

MIRROR = "http://deb.debian.org/debian"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(slots=True)
class Stage:
    """One stage of a Dockerfile and, while it is built, its root folder and settings."""

    base: str
    name: str
    instructions: list[tuple[str, str]] = field(default_factory=list)
    root: Path = Path()
    env: dict[str, str] = field(default_factory=dict)
    folder: str = "/"
    user: str = "0"
    health: list[str] = field(default_factory=list)


def read_dockerfile(text: str) -> tuple[dict[str, str], dict[str, Stage]]:
    """Split a Dockerfile: the ARGs before the first FROM with their defaults, and the stages by name."""
    text = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    text = re.sub(r"\\\n", " ", text)
    arguments: dict[str, str] = {}
    stages: dict[str, Stage] = {}
    stage = None
    for line in filter(None, map(str.strip, text.splitlines())):
        word, rest = line.split(None, 1)
        if word == "FROM":
            base, _, name = rest.partition(" AS ")
            stage = stages[name] = Stage(base, name)
        elif stage is None:
            if word != "ARG":
                raise ValueError(f"{word} before the first FROM")
            name, _, value = rest.partition("=")
            arguments[name] = value
        else:
            stage.instructions.append((word, rest))
    return arguments, stages


def substitute(text: str, values: dict[str, str]) -> str:
    """Put values in the place of $NAME and ${NAME}."""
    return re.sub(r"\$(?:\{(\w+)\}|(\w+))", lambda match: values.get(match[1] or match[2], ""), text)


def ignored(path: str, patterns: list[str]) -> bool:
    """Whether a .dockerignore of these patterns leaves `path` out: the last one that matches it or a parent decides."""
    out = False
    for pattern in patterns:
        keep = pattern.startswith("!")
        bare = pattern.lstrip("!")
        parts = path.split("/")
        heads = ["/".join(parts[:count]) for count in range(1, len(parts) + 1)]
        if any(
            fnmatch(head, bare) or (bare.startswith("**/") and fnmatch(Path(head).name, bare[3:])) for head in heads
        ):
            out = not keep
    return out


class Builder:
    """Builds stages on demand, each in a folder of its own."""

    def __init__(self, dockerfile: Path, out: Path, options: argparse.Namespace) -> None:
        self.arguments, self.stages = read_dockerfile(dockerfile.read_text(encoding="utf-8"))
        self.context = Path.cwd()
        lines = dockerfile.with_name(dockerfile.name + ".dockerignore").read_text(encoding="utf-8").splitlines()
        self.patterns = [line for line in lines if line and not line.startswith("#")]
        self.out = out
        self.given = dict(pair.split("=", 1) for pair in options.arg)
        self.arguments |= {name: value for name, value in self.given.items() if name in self.arguments}
        self.env = dict(pair.split("=", 1) for pair in options.env)
        self.binds = [(Path(source), target) for source, target in (bind.split("=", 1) for bind in options.bind)]
        self.done: set[str] = set()

    def build(self, name: str) -> Stage:
        """Build a stage and what it takes from."""
        stage = self.stages[name]
        if name in self.done:
            return stage
        base = substitute(stage.base, self.arguments)
        bare = self.bare(base)
        stage.root = self.out / name
        if stage.root.exists():
            raise ValueError(f"{stage.root} exists: remove it, or build elsewhere")
        subprocess.run(["cp", "-a", bare, stage.root], check=True)
        for word, rest in stage.instructions:
            print(f"[{name}] {word} {rest[:150]}", file=sys.stderr, flush=True)
            self.follow(stage, word, rest)
        self.done.add(name)
        return stage

    def bare(self, base: str) -> Path:
        """The root of a bare Debian, made once for all stages: what debian:RELEASE-slim is made of."""
        match = re.fullmatch(r"debian:([a-z]+)(-\d+)?(-slim)?", base)
        if match is None:
            raise ValueError(f"{base} is no plain Debian image; only those can be made without an engine")
        root = self.out / f"debian-{match[1]}"
        if not root.exists():
            subprocess.run(["debootstrap", "--variant=minbase", match[1], root, MIRROR], check=True, stdout=sys.stderr)
            for name in ("resolv.conf", "hosts"):
                shutil.copy(f"/etc/{name}", root / "etc" / name)
        return root

    def follow(self, stage: Stage, word: str, rest: str) -> None:
        """Carry out one instruction."""
        values = {"PATH": PATH, **stage.env}
        if word == "ARG":
            name, _, default = rest.partition("=")
            stage.env[name] = self.given.get(name, default)
        elif word == "ENV":
            for pair in shlex.split(rest):
                name, _, value = pair.partition("=")
                stage.env[name] = substitute(value, values)
        elif word == "WORKDIR":
            stage.folder = rest
            (stage.root / rest.lstrip("/")).mkdir(parents=True, exist_ok=True)
        elif word == "USER":
            stage.user = rest
        elif word == "COPY":
            self.copy(stage, shlex.split(substitute(rest, values)))
        elif word == "RUN":
            self.run_shell(stage, rest)
        elif word == "HEALTHCHECK":
            stage.health = json.loads(rest[rest.index("CMD") + 3 :])
        elif word not in ("ENTRYPOINT", "CMD"):
            raise ValueError(f"{word} is not among the instructions that can be followed here")

    def copy(self, stage: Stage, words: list[str]) -> None:
        """COPY [--from=STAGE] SOURCES... TARGET."""
        target = stage.root / os.path.join(stage.folder, words[-1]).lstrip("/")
        if words[0].startswith("--from="):
            source = self.build(words[0].removeprefix("--from=")).root / words[1].lstrip("/")
            subprocess.run(["cp", "-a", f"{source}/." if target.is_dir() else source, target], check=True)
            return
        into = words[-1].endswith("/") or (target.is_dir() and words[0] != ".")
        for word in words[:-1]:
            source = self.context / word
            files = [source] if source.is_file() else sorted(path for path in source.rglob("*") if path.is_file())
            for path in files:
                inside = path.relative_to(self.context).as_posix()
                if inside.startswith(".") or ignored(inside, self.patterns):
                    continue
                place = target / path.name if into and source.is_file() else target / path.relative_to(source)
                place = target if source.is_file() and not into else place
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(path, place)

    def run_shell(self, stage: Stage, rest: str) -> None:
        """RUN with its mounts: those of type bind show a folder of another stage, caches are left out."""
        mounts = []
        while rest.startswith("--mount="):
            option, rest = rest.split(None, 1)
            facts = dict(pair.split("=", 1) for pair in option.removeprefix("--mount=").split(","))
            if facts["type"] == "bind":
                source = self.build(facts["from"]).root / facts["source"].lstrip("/")
                mounts.append((source, facts["target"]))
            elif facts["type"] != "cache":
                raise ValueError(f"a mount of type {facts['type']} cannot be followed here")
        self.inside(stage, ["/bin/sh", "-ec", f"cd {shlex.quote(stage.folder)}; {rest}"], mounts)

    def inside(self, stage: Stage, command: list[str], mounts: list[tuple[Path, str]] | None = None) -> None:
        """Run a command in a stage's root as its user, in a mount namespace that ends with it."""
        lines = ["set -e", f"mount --rbind /dev {shlex.quote(str(stage.root / 'dev'))}"]
        lines.append(f"mount -t proc proc {shlex.quote(str(stage.root / 'proc'))}")
        for source, target in [*(mounts or []), *self.binds]:
            place = stage.root / target.lstrip("/")
            place.mkdir(parents=True, exist_ok=True)
            quoted = shlex.quote(str(place))
            # read-only: a package's scripts must not reach what is the host's or another stage's
            lines.append(f"mount --bind {shlex.quote(str(source))} {quoted} && mount -o remount,bind,ro {quoted}")
        env = {"PATH": PATH, "HOME": "/root" if stage.user == "0" else "/nonexistent", **self.env, **stage.env}
        words = ["env", "-i", *(f"{name}={value}" for name, value in env.items()), *command]
        user = f"--userspec={stage.user}:{stage.user}"
        lines.append(shlex.join(["exec", "chroot", user, str(stage.root), *words]))
        subprocess.run(["unshare", "--mount", "sh", "-c", "\n".join(lines)], check=True)


def main() -> None:
    """Build a target, run its health check and a command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dockerfile", type=Path)
    parser.add_argument("target")
    parser.add_argument("out", type=Path)
    parser.add_argument(
        "--env", action="append", default=[], metavar="NAME=VALUE", help="for every command (repeat it)"
    )
    parser.add_argument("--arg", action="append", default=[], metavar="NAME=VALUE", help="a build argument (repeat it)")
    parser.add_argument("--bind", action="append", default=[], metavar="HOST=INSIDE", help="a folder, read-only")
    parser.add_argument("--run", nargs=argparse.REMAINDER, default=[], help="what to run in the end")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    builder = Builder(options.dockerfile, options.out.resolve(), options)
    stage = builder.build(options.target)
    size = subprocess.run(["du", "-sm", stage.root], check=True, capture_output=True, text=True).stdout.split()[0]
    print(f"built {options.target}: {size} MB", file=sys.stderr)
    for command in (stage.health, options.run):
        if command:
            print(f"[{options.target}] as {stage.user}: {shlex.join(command)}", file=sys.stderr)
            script = f"cd {shlex.quote(stage.folder)}; exec {shlex.join(command)}"
            builder.inside(stage, ["/bin/sh", "-ec", script])


if __name__ == "__main__":
    try:
        main()
    except subprocess.CalledProcessError as error:
        sys.exit(f"a command failed with exit code {error.returncode}: {str(error.cmd)[-300:]}")
    except ValueError as error:
        sys.exit(str(error))
