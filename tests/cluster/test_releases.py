"""Several releases of the chart at one real API server: whose the CustomResourceDefinition is, and that nobody loses it."""

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import helm
import pytest
import yaml
from conftest import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))
from control_plane import control_plane

pytestmark = pytest.mark.cluster
NAME = "multiagentfinetunes.maft.dev"
MADE = "kind: CustomResourceDefinition"
LEFT = "The CustomResourceDefinitions belong to {} and were left as they are"
NARROW = ("--set", "namespaces={default}")
ALWAYS = ("--set", "crds.install=true")


@dataclass(frozen=True)
class Site:
    """A cluster, as its administrator has it."""

    kubeconfig: Path

    def helm(self, *arguments: str) -> tuple[int, str]:
        given = () if arguments[0] == "uninstall" else ("--set", "images.prefix=r.io/maft")
        done = helm.call(*arguments, "--kubeconfig", str(self.kubeconfig), "--namespace", "default", *given)
        return done.returncode, done.stdout + done.stderr

    def kubectl(self, *arguments: str) -> str:
        command = ["kubectl", "--kubeconfig", str(self.kubeconfig), *arguments]  # one program, which becomes what it is called by
        done = subprocess.run(command, executable=helm.folder("kube") / "kube", capture_output=True, text=True, timeout=60)
        return done.stdout + done.stderr

    def owner(self) -> str:
        """The release whose the definition is, by Helm's own note."""
        note = r"{.metadata.annotations.meta\.helm\.sh/release-name}"
        return self.kubectl("get", "crd", NAME, "-o", f"jsonpath={note}")


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with control_plane(tmp_path) as plane:
        config = yaml.safe_load((tmp_path / "kubeconfig").read_text())
        config["users"][0]["user"] = {"token": plane.token}
        (tmp_path / "admin").write_text(yaml.safe_dump(config))
        yield Site(tmp_path / "admin")


def test_the_first_release_has_the_definition_and_others_leave_it_alone(site: Site) -> None:
    chart = str(helm.CHART)
    assert site.helm("install", "one", chart)[0] == 0 and site.owner() == "one"
    code, said = site.helm("install", "two", chart, *NARROW)
    assert code == 0 and LEFT.format("default/one") in said and MADE not in said
    code, said = site.helm("upgrade", "one", chart, "--dry-run=server")
    assert code == 0 and MADE in said  # its own it upgrades
    code, said = site.helm("install", "three", chart, *NARROW, *ALWAYS)
    assert code == 1 and 'release-name" must equal "three": current value is "one"' in said  # Helm says whose it is
    assert site.helm("uninstall", "one")[0] == 0 and site.owner() == "one"  # it stays, with all runs
    assert site.helm("upgrade", "two", chart, *NARROW, *ALWAYS, "--take-ownership")[0] == 0 and site.owner() == "two"


def test_a_release_from_which_it_was_taken_does_not_take_it_along(site: Site) -> None:
    """What a release no longer has, Helm deletes; the definition is kept, and the runs with it."""
    chart = str(helm.CHART)
    assert site.helm("install", "one", chart)[0] == 0
    assert site.helm("install", "two", chart, *NARROW, *ALWAYS, "--take-ownership")[0] == 0
    code, said = site.helm("upgrade", "one", chart)
    assert code == 0 and LEFT.format("default/two") in said
    assert site.owner() == "two"


def test_one_that_kubectl_made_is_left_alone(site: Site) -> None:
    site.kubectl("apply", "--server-side", "-f", str(ROOT / "crds"))
    code, said = site.helm("install", "one", str(helm.CHART))
    assert code == 0 and LEFT.format("kubectl") in said and site.owner() == ""
