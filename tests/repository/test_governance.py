"""Decisions, templates, citation: that they lead somewhere and agree with the rest of the repository."""

import re
import tomllib

import pytest
import yaml
from conftest import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
DECISIONS = ROOT / "docs" / "decisions"
GITHUB = ROOT / ".github"
PAGES = sorted(DECISIONS.glob("*.md"))
TEXTS = sorted(p for p in GITHUB.rglob("*") if p.is_file())


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.stem)
def test_links_lead_somewhere(page):
    targets = [t.partition("#")[0] for t in re.findall(r"\]\(([^)]+)\)", page.read_text()) if "://" not in t]
    assert targets
    assert [t for t in targets if not (page.parent / t).exists()] == []


def test_links_into_the_repository_lead_somewhere():
    """Addresses of its future home, in .github and in the metadata of the package."""
    home = re.escape(PROJECT["urls"]["Homepage"])
    texts = [*(p.read_text() for p in TEXTS), *PROJECT["urls"].values()]
    paths = [path for text in texts for path in re.findall(rf"{home}/(?:blob|tree)/main/([\w./-]+)", text)]
    assert paths
    assert [p for p in paths if not (ROOT / p).exists()] == []


def test_the_index_lists_every_decision_once():
    listed = re.findall(r"^\| \[[^\]]+\]\(([\w-]+\.md)\)", (DECISIONS / "README.md").read_text(), re.MULTILINE)
    assert sorted(listed) == sorted(p.name for p in PAGES if p.name != "README.md")


@pytest.mark.parametrize("page", [p for p in PAGES if p.name != "README.md"], ids=lambda p: p.stem)
def test_a_decision_has_its_parts(page):
    parts = re.findall(r"^## (.+)$", page.read_text(), re.MULTILINE)
    assert parts == ["Context", "Decision", "What it costs", "What was tried", "When to look at it again"]


def test_the_citation_is_of_this_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert str(citation["version"]) == PROJECT["version"]
    assert citation["license"] == PROJECT["license"]
    assert citation["repository-code"] == PROJECT["urls"]["Homepage"]
    (paper,) = citation["references"]
    assert paper["url"] == PROJECT["urls"]["Paper"]
    assert len(paper["authors"]) == 6


def test_the_chart_has_the_home_of_the_project():
    chart = yaml.safe_load((ROOT / "charts" / "maft" / "Chart.yaml").read_text())
    assert [chart["home"], *chart["sources"]] == [PROJECT["urls"]["Homepage"]] * 2


def test_forms_ask_with_keys_of_their_own():
    """GitHub drops a form without a word if an id is missing, twice there, or a field has no label."""
    for form in ("bug", "feature"):
        body = yaml.safe_load((GITHUB / "ISSUE_TEMPLATE" / f"{form}.yml").read_text())["body"]
        ids = [field["id"] for field in body if field["type"] != "markdown"]
        assert ids and len(set(ids)) == len(ids)
        assert all(field["attributes"]["label"] for field in body if field["type"] != "markdown")


def test_hooks_call_what_the_environment_has():
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    programs = {hook["entry"].split()[0] for hook in hooks}
    assert programs == {f".venv/bin/{name}" for name in ("ruff", "mypy", "lint-imports")}
    assert all((ROOT / program).exists() for program in programs)


def test_folders_that_dependabot_watches_exist():
    updates = yaml.safe_load((GITHUB / "dependabot.yml").read_text())["updates"]
    folders = [folder for update in updates for folder in update["directories"]]
    assert [f for f in folders if not list(ROOT.glob(f.strip("/") or "pyproject.toml"))] == []
