"""What the repository says of itself is true: plans, reference, versions, links, commands."""

import ast
import re
import subprocess
import sys
import tomllib
from typing import get_args

import pytest
import yaml
from conftest import ROOT

import maft
import maft_operator
from maft.spec import TaskKind
from maft_operator.__main__ import main
from maft_operator.spec.schema import PLURALS, checked

sys.path.insert(0, str(ROOT / "scripts"))

RUNS = re.compile(r"^kind: MultiAgent(Finetune|Comparison)$", re.MULTILINE)
EXAMPLES = sorted(p.stem for p in (ROOT / "examples").glob("*.yaml") if RUNS.search(p.read_text()))


def maft_says(capsys, *line):
    """What the command prints that succeeds, in this process."""
    with pytest.raises(SystemExit) as ended:
        main(line)
    assert not ended.value.code
    return capsys.readouterr().out


@pytest.mark.parametrize("example", EXAMPLES)
def test_golden_plans(example, capsys, monkeypatch):
    """`maft plan examples/X.yaml > examples/X.plan` after a change that means it."""
    monkeypatch.chdir(ROOT)
    assert maft_says(capsys, "plan", f"examples/{example}.yaml") == (ROOT / "examples" / f"{example}.plan").read_text()


@pytest.mark.parametrize("example", EXAMPLES)
def test_examples_are_valid(example, capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert maft_says(capsys, "validate", f"examples/{example}.yaml").endswith("is valid\n")


def test_other_resources_of_the_examples_are_valid():
    """Whatever is no run and no comparison of runs."""
    others = [p for p in (ROOT / "examples").glob("*.yaml") if not RUNS.search(p.read_text())]
    assert ROOT / "examples" / "society.yaml" in others
    for path in others:
        for body in yaml.safe_load_all(path.read_text()):
            assert checked(body, body["kind"])


POSSESSIVE = re.compile(r"(?:(?<!\\)\)|[A-Z]\})(?:[?*+]|\{\{?\d*,?\d*\}?\})\+")


def test_patterns_mean_the_same_to_every_python():
    """`(?>(?:ab)?)` in place of `(?:ab)?+`: before 3.11.5 groups of the latter lose ways to match (CPython issue 106052)."""
    assert POSSESSIVE.search(r"(?:ab)?+") and POSSESSIVE.search(r"(a|b){1,3}+") and POSSESSIVE.search("{_PART}*+")
    assert not POSSESSIVE.search(r"[ab]?+\d{1,3}+\)?+(?>(?:ab)?)")
    sources = [path for package in ("images", "operator", "client") for path in (ROOT / package).rglob("*.py")]
    assert not [(path.name, line) for path in sources for line in path.read_text().splitlines() if POSSESSIVE.search(line)]


def test_the_reference_is_made_from_the_schema():
    import resource_reference

    for kind, page in resource_reference.PAGES.items():
        assert (ROOT / "docs" / page).read_text() == resource_reference.reference(kind), page
    assert resource_reference.PAGES.keys() == PLURALS.keys()


def test_the_definition_of_comparisons_is_made_from_that_of_runs():
    import comparison_definition

    assert comparison_definition.COMPARISONS.read_text() == comparison_definition.written()


def test_the_table_of_methods_is_made_from_the_code():
    """`python scripts/methods_reference.py` after a change that means it."""
    import methods_reference

    from maft_operator.spec.methods import METHODS

    assert (ROOT / "docs" / "methods.md").read_text() == methods_reference.page()
    assert list(methods_reference.SOURCES) == list(METHODS)


def test_the_tables_of_generators_are_made_from_the_code():
    """`python scripts/generators_reference.py` after a change that means it."""
    import generators_reference

    assert generators_reference.PAGE.read_text() == generators_reference.page()


def test_one_version():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    chart = yaml.safe_load((ROOT / "charts" / "maft" / "Chart.yaml").read_text())
    assert project["version"] == maft.__version__ == maft_operator.__version__ == chart["version"] == chart["appVersion"]


@pytest.mark.parametrize("page", sorted(p.relative_to(ROOT).as_posix() for p in [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]))
def test_links_lead_somewhere(page):
    text = (ROOT / page).read_text()
    targets = [t.partition("#")[0] for t in re.findall(r"\]\(([^)]+)\)", text) if "://" not in t]
    missing = [t for t in targets if t and not ((ROOT / page).parent / t).exists()]
    assert missing == []


PATH = re.compile(
    r"(?<![\w/.~<>{}-])((?:tests|images|operator|scripts|charts|crds|deploy|benchmarks|docs|requirements|maft_operator)"
    r"/[\w./-]*\w\.(?:py|yaml|md|tpl|sh|json|txt))\b"
)


@pytest.mark.parametrize("folder", ["docs", "charts", "scripts", "images", "operator", "tests", "benchmarks", "."])
def test_files_that_are_named_exist(folder):
    """Paths in pages, comments and docstrings."""
    files = ROOT.glob("*.md") if folder == "." else (ROOT / folder).rglob("*")
    pages = [p for p in files if p.suffix in (".md", ".py", ".yaml", ".tpl", ".sh") and "support/cluster" not in p.as_posix()]
    named = {(page, name) for page in pages for name in PATH.findall(page.read_text())}
    assert pages
    roots = (ROOT, ROOT / "operator")
    assert [(page.name, name) for page, name in sorted(named) if not any((root / name).exists() for root in roots)] == []


def test_every_kind_of_task_stands_in_its_page():
    rows = re.findall(r"^\| `([\w-]+)` \| .* \|$", (ROOT / "docs" / "tasks.md").read_text(), re.MULTILINE)
    assert set(get_args(TaskKind)) <= set(rows)


def test_the_map_of_files_is_complete():
    """Every room stands in CONTRIBUTING.md: folders of both packages and the modules beside them."""
    text = (ROOT / "CONTRIBUTING.md").read_text()
    map_ = text[text.index("## Map of files") : text.index("## How to add")]
    packages = (ROOT / "operator/maft_operator", ROOT / "images/maft")
    rooms = [f"{p.name}/" for package in packages for p in package.iterdir() if (p / "__init__.py").exists()]
    modules = [m.stem for package in packages for m in package.glob("*.py") if m.stem != "__init__"]
    named = {part.removesuffix(".py") for path in re.findall(r"`([\w./]+)`", map_) for part in path.split("/")}
    assert [name for name in [*rooms, *modules] if name.rstrip("/") not in named] == []


def test_recipes_name_tests_that_exist():
    text = (ROOT / "CONTRIBUTING.md").read_text()
    files = {path.name: path.read_text() for path in (ROOT / "tests").rglob("test_*.py")}
    named = re.findall(r"`(test_\w+\.py)(?:::(test_\w+))?`", text)
    assert len(named) > 8
    assert [(file, name) for file, name in named if file not in files or f"def {name}" not in files[file]] == []


@pytest.mark.parametrize("command", ["run", "compare", "plan", "validate", "report", "operator", "bundle", "clean"])
def test_help_says_what_a_command_does(command, capsys):
    assert len(maft_says(capsys, command, "--help")) > 300


@pytest.mark.programs
@pytest.mark.parametrize("program", ["prepare", "preflight", "debate", "train", "evaluate", "report", "compare", "serve"])
def test_programs_explain_their_flags(program):
    done = subprocess.run([sys.executable, "-m", f"maft.{program}", "--help"], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0
    assert "--store" in done.stdout and "--run" in done.stdout


def test_make_targets_of_the_readme_exist():
    targets = re.findall(r"^make (\w+)", (ROOT / "README.md").read_text(), re.MULTILINE)
    makefile = (ROOT / "Makefile").read_text()
    assert set(targets) - {"nightly"} == {"demo", "test", "images"}
    assert all(re.search(rf"^{t}:", makefile, re.MULTILINE) for t in targets)


def test_the_demo_is_small():
    size = sum(p.stat().st_size for p in (ROOT / "examples" / "tiny").glob("*") if p.is_file())
    assert size <= 6 * 2**20


EMPTY_WORDS = {"found", "told", "said"}  # which say how somebody came to a value, and not what it is


@pytest.mark.parametrize("package", ["images/maft", "operator/maft_operator"])
def test_values_are_named_for_what_they_hold(package):
    named = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in (ROOT / package).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if (isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) and node.id in EMPTY_WORDS)
        or (isinstance(node, ast.arg) and node.arg in EMPTY_WORDS)
    ]
    assert named == []


def test_what_a_decision_says_of_speed_is_what_the_page_about_it_says() -> None:
    decision, page = ((ROOT / "docs" / name).read_text() for name in ("decisions/kopf-only-watches.md", "performance.md"))
    said = [*re.findall(r"- As it is now.*?(?=\n- )", decision, re.DOTALL), *re.findall(r"take \d+ requests a second", decision)]
    figures = re.findall(r"\b\d+(?:\.\d+)?(?= (?:s\b|%|MiB|requests))", " ".join(said))
    assert len(figures) > 8
    table = page[page.index("<!-- operator_scale: begin") : page.index("<!-- operator_active: end")]
    assert [figure for figure in figures if not re.search(rf"(?<![\d.]){re.escape(figure)}(?![\d.])", table)] == []
