"""The flags of `maft operator`: what becomes of them, and one line for what is wrong."""

import argparse
import subprocess
import sys
from pathlib import Path

import pytest

from maft_operator.cluster import flags
from maft_operator.cluster.images import ROLES, Images
from maft_operator.spec.schema import BadSpec

DIGEST = f"sha256:{64 * 'a'}"


def parsed(*line: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    flags.add(parser)
    return parser.parse_args(line)


def images(*line: str) -> Images:
    return flags.images(parsed(*line))


def test_images_come_from_one_place_or_each_from_its_own() -> None:
    settings = images(
        "--images=r.io/maft/", "--tag=7", f"--image=trainer=other/train@{DIGEST}", "--image=inference=a:1", "--image=inference=b:2"
    )
    assert {role: settings.of(role) for role in ROLES} == {
        "debate": "r.io/maft/debate:7",
        "trainer": f"other/train@{DIGEST}",
        "inference": "b:2",
    }
    assert settings.of("inference", "theirs:3") == "theirs:3"  # the run's own
    alone = images(*(f"--image={role}=x/{role}:1" for role in ROLES))
    assert {alone.of(role) for role in ROLES} == {f"x/{role}:1" for role in ROLES}


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ((), "--images: not set; "),
        (("--images=/",), "--images: not set; "),
        (("--image=debate=x",), "--images: not set; "),
        (("--images=p", "--image=debates=x"), "--image debates=x: expected ROLE=IMAGE; roles are debate, trainer, inference"),
        (("--images=p", "--image=debate"), "--image debate=: expected ROLE=IMAGE"),
        (("--images=p", "--image=debate=a b"), "--image debate=a b: expected ROLE=IMAGE"),
        (("--images=p", "--inherit-label=maft.dev/run"), "--inherit-label maft.dev/run: is set by Kubernetes or the operator"),
        (("--images=p", "--gpu-resource=gpu"), "--gpu-resource gpu: expected a name such as nvidia.com/gpu"),
        (("--images=p", "--gpu-resource=a..b/gpu"), "--gpu-resource a..b/gpu: expected a name such as nvidia.com/gpu"),
        (("--images=p", "--gpu-resource=requests.nvidia.com/gpu"), "--gpu-resource requests.nvidia.com/gpu: expected"),
        (("--images=p", "--gpu-resource=x.kubernetes.io/gpu"), "--gpu-resource x.kubernetes.io/gpu: expected"),
        (("--images=https://r.io/maft",), "--images https://r.io/maft: expected HOST/FOLDER without https:// and a tag"),
        (("--images=r.io/maft:1",), "--images r.io/maft:1: expected HOST/FOLDER without https:// and a tag"),
        (("--images=r.io/Maft",), "--images r.io/Maft: expected HOST/FOLDER"),
        (("--images= ",), "--images  : expected HOST/FOLDER"),
        (("--images=p", "--tag="), "--tag : expected letters"),
        (("--images=p", "--tag=a b"), "--tag a b: expected letters"),
        (("--images=p", "--image=debate=https://r.io/x"), "--image debate=https://r.io/x: expected ROLE=IMAGE"),
    ],
)
def test_what_is_wrong_is_one_line(line: tuple[str, ...], words: str) -> None:
    with pytest.raises(BadSpec) as caught:
        images(*line)
    assert str(caught.value).startswith(words) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (("--metrics-tls-cert=c",), "--metrics-tls-cert, --metrics-tls-key: one without the other; give both"),
        (("--metrics-tls-key=k", "--metrics-auth"), "--metrics-tls-cert, --metrics-tls-key: one without the other; give both"),
        (("--metrics-auth",), "--metrics-auth: without --metrics-tls-cert and --metrics-tls-key tokens would be read on their way"),
    ],
)
def test_tokens_are_asked_for_over_tls_alone(line: tuple[str, ...], words: str) -> None:
    with pytest.raises(BadSpec) as caught:
        flags.certificate(parsed(*line))
    assert str(caught.value).startswith(words) and "\n" not in str(caught.value)


def test_metrics_may_be_open_and_a_certificate_need_not_ask_for_tokens() -> None:
    both = ("--metrics-tls-cert=c", "--metrics-tls-key=k")
    assert flags.certificate(parsed()) is None
    assert flags.certificate(parsed(*both)) == flags.certificate(parsed(*both, "--metrics-auth")) == (Path("c"), Path("k"))


def test_settings_of_pods() -> None:
    usual = images("--images=p").pods
    assert (usual.cpu_limits, usual.disk, usual.ids, usual.gpu_resource, usual.digest) == (True, True, True, "nvidia.com/gpu", "")
    other = images(
        "--images=p",
        "--no-cpu-limits",
        "--no-disk-requests",
        "--no-pod-ids",
        "--gpu-resource=amd.com/gpu",
        "--inherit-label=b",
        "--inherit-label=a",
        "--inherit-annotation=c",
    ).pods
    assert (other.cpu_limits, other.disk, other.ids, other.gpu_resource) == (False, False, False, "amd.com/gpu")
    assert (other.labels, other.annotations) == (("a", "b"), ("c",))
    assert other.digest not in ("", images("--images=p", "--no-cpu-limits").pods.digest)


def test_the_command_ends_with_the_line(tmp_path: Path) -> None:
    (tmp_path / "d.yaml").write_text("spec: {nodeselector: {}}")
    command = [sys.executable, "-m", "maft_operator", "operator", "--images=p", f"--pod-defaults={tmp_path}/d.yaml"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    line = f"error: --pod-defaults {tmp_path}/d.yaml: spec.nodeselector: unknown field; did you mean nodeSelector?\n"
    assert (done.returncode, done.stderr) == (2, line)
