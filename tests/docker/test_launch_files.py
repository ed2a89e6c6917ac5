"""compose.yaml, the PyTorchJob and the Slurm script: valid by their schemas, and their command lines by the parsers."""

import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import click
import pytest
import torch.distributed.run

from command_lines import check, check_torchrun, read_yaml
from prunekd.store import Store

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "docker"
BIN = Path(sys.executable).parent


def test_yamllint_and_the_schema_of_compose_find_nothing(tmp_path: Path) -> None:
    rules = "{extends: default, rules: {line-length: {max: 120}}}"
    files = sorted(DOCKER.glob("*.yaml"))
    assert len(files) == 2
    done = subprocess.run([BIN / "yamllint", "-s", "-d", rules, *files], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    schema = [BIN / "check-jsonschema", "--builtin-schema", "vendor.compose-spec"]
    done = subprocess.run([*schema, DOCKER / "compose.yaml"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    wrong = tmp_path / "compose.yaml"
    wrong.write_text((DOCKER / "compose.yaml").read_text().replace("shm_size:", "shm_sise:"))
    assert subprocess.run([*schema, wrong], capture_output=True).returncode != 0


def test_compose_trains_on_all_gpus_and_goes_on_after_a_crash() -> None:
    services: Any = read_yaml(DOCKER / "compose.yaml")["services"]
    train = services["train"]
    assert train["entrypoint"] == ["python", "-m", "torch.distributed.run"]
    assert check_torchrun(train["command"]) == "train"
    assert "--resume=auto" in train["command"]
    assert train["restart"] == "on-failure"
    assert train["shm_size"]
    assert train["build"]["target"] == "gpu"
    assert check(shlex.join(["prunekd", *services["prunekd"]["command"]])) == "doctor"


# the fields of the training operator's PyTorchJob, v1
ELASTIC = {
    "minReplicas": int, "maxReplicas": int, "rdzvBackend": str, "rdzvPort": int, "rdzvHost": str, "rdzvId": str,
    "rdzvConf": list, "standalone": bool, "nProcPerNode": int, "maxRestarts": int, "metrics": list,
}  # fmt: skip
RUN_POLICY = {
    "cleanPodPolicy": str, "ttlSecondsAfterFinished": int, "activeDeadlineSeconds": int, "backoffLimit": int,
    "schedulingPolicy": dict, "suspend": bool, "managedBy": str,
}  # fmt: skip


def fits(value: dict[str, Any], fields: dict[str, type]) -> None:
    for name, entry in value.items():
        assert name in fields, f"no field {name}"
        assert type(entry) is fields[name], f"{name} is {entry!r}"


def test_the_pytorchjob_has_the_fields_of_its_kind() -> None:
    import kubernetes_validate

    job: Any = read_yaml(DOCKER / "pytorchjob.yaml")
    assert (job["apiVersion"], job["kind"]) == ("kubeflow.org/v1", "PyTorchJob")
    spec = job["spec"]
    fits(spec, {"nprocPerNode": str, "elasticPolicy": dict, "runPolicy": dict, "pytorchReplicaSpecs": dict})
    fits(spec["elasticPolicy"], ELASTIC)
    fits(spec["runPolicy"], RUN_POLICY)
    assert spec["elasticPolicy"]["rdzvBackend"] in ("c10d", "etcd", "etcd-v2")
    worker = spec["pytorchReplicaSpecs"]["Worker"]
    fits(worker, {"replicas": int, "restartPolicy": str, "template": dict})
    assert worker["replicas"] == spec["elasticPolicy"]["maxReplicas"]
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": worker["template"]["spec"]}
    version = kubernetes_validate.latest_version()
    kubernetes_validate.validate(pod, version, strict=True)
    container = pod["spec"]["containers"][0]
    assert container["name"] == "pytorch"
    assert container["command"] == ["python", "-m", "torch.distributed.run"]
    assert check_torchrun(container["args"]) == "train"
    assert "--resume=auto" in container["args"]
    mounts = {mount["name"] for mount in container["volumeMounts"]}
    assert mounts == {volume["name"] for volume in pod["spec"]["volumes"]}
    container["volumeMount"] = []
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(pod, version, strict=True)


def test_torchrun_takes_the_rendezvous_from_what_the_operator_sets(monkeypatch: pytest.MonkeyPatch) -> None:
    job: Any = read_yaml(DOCKER / "pytorchjob.yaml")
    elastic = job["spec"]["elasticPolicy"]
    for name, value in {
        "PET_RDZV_ENDPOINT": "prunekd-student-worker-0:23456",
        "PET_RDZV_BACKEND": elastic["rdzvBackend"],
        "PET_NNODES": f"{elastic['minReplicas']}:{elastic['maxReplicas']}",
        "PET_MAX_RESTARTS": str(elastic["maxRestarts"]),
        "PET_NPROC_PER_NODE": "1",
    }.items():
        monkeypatch.setenv(name, value)
    arguments = job["spec"]["pytorchReplicaSpecs"]["Worker"]["template"]["spec"]["containers"][0]["args"]
    options = torch.distributed.run.get_args_parser().parse_args(arguments)
    assert options.rdzv_endpoint == "prunekd-student-worker-0:23456"
    assert (options.rdzv_backend, options.nnodes, int(options.max_restarts)) == ("c10d", "1:2", 10)
    assert options.nproc_per_node == "gpu", "the command line comes before the environment"


def test_command_lines_in_comments_parse() -> None:
    lines = [
        line.lstrip("# ").replace("docker compose -f docker/compose.yaml run --rm prunekd", "prunekd")
        for line in (DOCKER / "compose.yaml").read_text().splitlines()
    ]
    assert [check(line) for line in lines if line.startswith("prunekd ")] == ["convert"]
    head = (DOCKER / "slurm.sh").read_text().replace(" \\\n#", "").splitlines()
    lines = [line.partition("docker/slurm.sh ")[2] for line in head if line.startswith("#   sbatch")]
    assert [check(f"prunekd {line}") for line in lines] == ["train"]


def test_the_check_of_command_lines_can_fail() -> None:
    good = "prunekd train store --recipe demo --set epochs=2 --out run"
    assert check(good) == "train"
    assert check("ls store") is None
    for wrong, error in (
        ("prunekd train store --recipe demo --outt run", click.UsageError),
        ("prunekd train store --recipe demo", click.UsageError),
        ("prunekd trane store", click.UsageError),
        ("prunekd train store --recipe nemo --out run", ValueError),
        ("prunekd train store --recipe demo --set epoch=2 --out run", ValueError),
        ("prunekd train store --recipe demo --workers none --out run", click.UsageError),
        ("prunekd select store other --policy random --keep 1 --out x", click.UsageError),
        ("torchrun --standalone train.py", ValueError),
    ):
        with pytest.raises(error):
            check(wrong)
    with pytest.raises(SystemExit):
        check("torchrun --nproc 2 --nodez 3 -m prunekd train")


@pytest.fixture
def cluster(tmp_path: Path) -> dict[str, str]:
    """An environment in which stand-ins for srun and scontrol run everything on this host, and note what they did."""
    programs = tmp_path / "bin"
    programs.mkdir()
    log = tmp_path / "log"
    scripts = {
        "scontrol": f'echo "scontrol $*" >> {log}\n[ "$1" != show ] || echo 127.0.0.1\n',
        "srun": f'echo "srun $1" >> {log}\nshift\nexec "$@"\n',
        "python": f'exec {sys.executable} "$@"\n',
    }
    for name, text in scripts.items():
        (programs / name).write_text(f"#!/bin/sh\n{text}")
        (programs / name).chmod(0o755)
    return {
        **os.environ,
        "PATH": f"{programs}:{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join(
            filter(None, [f"{ROOT}/engine", f"{ROOT}/kernels", os.environ.get("PYTHONPATH")])
        ),
        "OMP_NUM_THREADS": "1",
        "SLURM_JOB_ID": str(os.getpid()),
        "SLURM_JOB_NODELIST": "host[1-2]",
        "SLURM_JOB_NUM_NODES": "1",
        "PROCESSES_PER_NODE": "1",
    }


def test_a_slurm_job_out_of_time_checkpoints_requeues_and_goes_on(
    cluster: dict[str, str], tiny_store: Store, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    settings = ["train_view.size=12", "eval_view.size=12", "epochs=150", "eval.every_epochs=150"]
    words = ["bash", str(DOCKER / "slurm.sh"), "train", str(tiny_store.path), "--recipe", "demo", "--device", "cpu"]
    words += ["--workers", "1", "--out", str(run), "--resume", "auto", *(f"--set={text}" for text in settings)]
    with subprocess.Popen(words, env=cluster, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as job:
        waited = time.monotonic() + 120
        while not (run / "metrics.jsonl").exists() and job.poll() is None and time.monotonic() < waited:
            time.sleep(0.1)
        job.send_signal(signal.SIGUSR1)
        output, _ = job.communicate(timeout=100)
    assert job.returncode == 0, output
    assert "back into the queue" in output
    assert f"scontrol requeue {cluster['SLURM_JOB_ID']}" in (tmp_path / "log").read_text()
    assert not (run / "result.json").exists()
    assert list((run / "checkpoints").iterdir())
    done = subprocess.run(words, env=cluster, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (run / "result.json").exists()
    assert (tmp_path / "log").read_text().count("srun --kill-on-bad-exit=1") == 2


def test_a_slurm_job_without_a_verb_says_how_it_is_used(cluster: dict[str, str]) -> None:
    done = subprocess.run(["bash", DOCKER / "slurm.sh"], env=cluster, capture_output=True, text=True)
    assert done.returncode == 2
    assert "VERB" in done.stderr
