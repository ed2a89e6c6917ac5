"""Every command in docs/ runs on tiny data, or where it cannot (clusters, downloads) its options are checked."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from command_lines import check
from docs.pages import PAGES, ROOT, TINY, blocks, run
from prunekd.cli import main
from store.datasets import cifar_folder, hugging_face, ilsvrc_archives, image_folder, webdataset_shards
from support import require

KINDS = ("sh", "console", "console fails", "python", "text", "yaml", "")
# a page with more data needs no batches as small as the others do
ROOMIER = {"tour": ("batch_size=128",)}
# programs that pages may name without running them
OUTSIDE = {
    "docker",
    "sbatch",
    "kubectl",
    "tensorboard",
    "apt-get",
    "git",
    "make",
    "pip",
    "export",
    "apptainer",
    "curl",
    "cd",
}


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What pages start from: photos, the archives of a tiny ImageNet, a store, a teacher, scores and two subsets."""
    folder = tmp_path_factory.mktemp("prepared")
    image_folder(folder / "photos", count=60)
    ilsvrc_archives(folder / "photos", folder / "imagenet")
    webdataset_shards(folder / "photos", folder / "shards")
    hugging_face(folder / "photos", folder / "hub")
    cifar_folder(folder, hundred=False, python=False)
    settings = [f"--set={setting}" for setting in TINY]

    def prunekd(*words: object) -> None:
        done = CliRunner().invoke(main, [str(word) for word in words])
        assert done.exit_code == 0, done.output

    store = folder / "store"
    prunekd("convert", folder / "photos", store)
    prunekd("train", store, "--recipe", "demo", *settings, "--out", folder / "teacher")
    prunekd("score", store, "--teacher", folder / "teacher", "--out", folder / "scores.parquet")
    select = ["select", store, "--scores", folder / "scores.parquet", "--policy", "medium"]
    prunekd(*select, "--keep", 0.5, "--out", folder / "half.parquet")
    prunekd("convert", image_folder(folder / "others", count=60, classes=4), folder / "elsewhere")
    damage(folder)
    return folder


def damage(folder: Path) -> None:
    """Beside `store`: `damaged`, where the bytes of sample 5 are others, and `cut`, whose file ends too early."""
    for name in ("damaged", "cut"):
        shutil.copytree(folder / "store", folder / name)
    sample = pq.read_table(folder / "damaged/train.index.parquet").filter(pc.field("id") == 5).to_pylist()[0]
    with open(folder / "damaged/train.beton", "r+b") as file:
        file.seek(sample["pointer"] + sample["size"] // 2)
        file.write(b"\xff" * 20)
    os.truncate(folder / "cut/train.beton", (folder / "cut/train.beton").stat().st_size // 2)


@pytest.fixture
def place(prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a copy of all that, and the repository's docs."""
    folder = tmp_path / "work"
    shutil.copytree(prepared, folder)
    for name in ("docs", "docker", "benchmarks"):
        (folder / name).symlink_to(ROOT / name)
    monkeypatch.chdir(folder)
    return folder


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_commands_of_a_page_run(page: Path, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for block in blocks(page):
        assert block.kind in KINDS, f"{page.name}:{block.line}: no such kind of block: {block.kind}"
        if block.kind == "sh":
            for command in block.commands:
                code, output = run(command, place, monkeypatch, (*TINY, *ROOMIER.get(page.stem, ())))
                assert code == 0, f"{page.name}:{block.line}: {command}\n{output}"
        elif block.kind == "console fails":
            (command,) = block.commands
            expected = block.text.partition("\n")[2].replace("\\\n", "").split("...")
            code, output = run(command, place, monkeypatch)
            flat = " ".join(output.split())
            assert code != 0, f"{page.name}:{block.line}: {command} did not fail:\n{output}"
            for part in expected:
                assert " ".join(part.split()) in flat, f"{page.name}:{block.line}: not {part!r} but\n{output}"


def test_ffcvs_own_loader_reads_the_rows_of_a_subset(place: Path) -> None:
    """As the page says, in the store and in one that lies in another order."""
    require("ffcv")
    (program,) = [block.text for block in blocks(ROOT / "docs/readers.md") if block.kind == "python"]
    compact = ["compact", "store", "--subset", "half.parquet", "--out", "compacted"]
    assert CliRunner().invoke(main, compact).exit_code == 0
    for store in ("store", "compacted"):
        text = program.replace('open_store("store")', f'open_store("{store}")')
        done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("page", [ROOT / "README.md", *PAGES], ids=lambda page: page.stem)
def test_command_lines_have_only_options_that_exist(page: Path) -> None:
    for block in blocks(page):
        if block.kind not in ("sh", "console"):
            continue
        for command in block.commands:
            line = command.splitlines()[0]
            line = re.sub(r"^docker compose .* run --rm prunekd ", "prunekd ", line)
            line = re.sub(r"^(\w+=\S+ |\w+=\"[^\"]*\" )*sbatch docker/slurm.sh ", "prunekd ", line)
            line = re.sub(r"^docker run .*prunekd:[cg]pu ", "prunekd ", line)
            line = re.sub(r"^apptainer exec .*\.sif prunekd ", "prunekd ", line)
            where = f"{page.name}:{block.line}: {line}"
            try:
                verb = check(line)
            except Exception as error:
                pytest.fail(f"{where}: {error}")
            if verb is None and block.kind == "console":
                assert line.split()[0] in OUTSIDE, f"{where} is neither run nor checked"


@pytest.mark.parametrize("page", [ROOT / "README.md", *PAGES], ids=lambda page: page.stem)
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_every_verb_is_in_the_docs() -> None:
    from prunekd.cli import VERBS

    text = "".join(page.read_text() for page in PAGES)
    assert [verb for verb in VERBS if f"prunekd {verb} " not in text and f"`{verb}`" not in text] == []
