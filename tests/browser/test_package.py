"""The JavaScript of the client: its tests in Node.js, its types, its size, and its npm package."""

import gzip
import json
import re
import shutil
import tarfile
import tomllib
from pathlib import Path
from typing import Any

import pytest

from browser.node import FOLDER, MODULES, TYPESCRIPT, need_packages, run, run_tests
from unmissed.cli.types import declarations
from unmissed.testing import SECRET

ROOT = FOLDER.parents[1]
SOURCE = ROOT / "src" / "unmissed" / "browser"
MAX_BYTES = 8_950
SHORT_TESTS = {
    "decisions.test.js",
    "ephemeral.test.js",
    "handlers.test.js",
    "presence.test.js",
    "requests.test.js",
    "snapshots.test.js",
    "stream.test.js",
    "values.test.js",
}
PACKAGE_TESTS = {FOLDER / "react.test.js", FOLDER / "vue.test.js"}
GENERATED = ("unmissed.min.js", "client.js.map")

pytestmark = pytest.mark.live


RESOLUTIONS = {"bundler": "esnext", "node16": "node16", "nodenext": "nodenext"}
"""How TypeScript finds the types of a package, and with which kind of modules."""


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the package as npm installs it, where the tests in Node.js find it."""
    folder = tmp_path_factory.mktemp("package")
    # What is packed with it is copied beside it: not in the sources, where other tests read.
    source = shutil.copytree(SOURCE, folder / "src" / "unmissed" / "browser")
    (folder / ".github").mkdir()
    for name in ("LICENSE", ".github/CHANGELOG.md"):
        shutil.copy(ROOT / name, folder / name)
    [packed] = json.loads(run("npm", "pack", source, "--json", "--silent", "--pack-destination", folder))
    installed = MODULES / "unmissed"
    shutil.rmtree(installed, ignore_errors=True)
    with tarfile.open(folder / packed["filename"]) as archive:
        archive.extractall(folder, filter="data")
    return shutil.copytree(folder / "package", installed)


def compile_strictly(*files: str | Path, resolution: str, folder: Path = FOLDER) -> None:
    """Compile TypeScript with the types of the package, and of all that it uses."""
    options = ("--strict", "--noEmit", "--target", "es2022", "--lib", "es2022,dom,dom.iterable", "--jsx", "react-jsx")
    modules = ("--module", RESOLUTIONS[resolution], "--moduleResolution", resolution)
    run(TYPESCRIPT, "--ignoreConfig", *options, *modules, *files, cwd=folder)


@pytest.mark.parametrize(
    "script",
    [
        pytest.param(each, marks=[pytest.mark.long] * (each.name not in SHORT_TESTS), id=each.name)
        for each in sorted(set(FOLDER.glob("*.test.js")) - PACKAGE_TESTS)
    ],
)
def test_the_tests_in_node_pass(script: Path) -> None:
    run_tests(script)


@pytest.mark.long
@pytest.mark.parametrize("script", sorted(PACKAGE_TESTS), ids=lambda script: script.name)
def test_the_wrappers_work_as_they_are_installed(package: Path, script: Path) -> None:
    need_packages()

    assert package.exists()
    run_tests(script)


EXAMPLES = re.compile(r"```(?:typescript|tsx|vue)\n(.*?)```", re.DOTALL)
SCRIPT = re.compile(r"<script[^>]*>\n(.*?)</script>", re.DOTALL)


@pytest.fixture
def examples(package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder with the TypeScript of the documents, and the types of the application that they show."""
    need_packages()
    monkeypatch.setenv("UNMISSED_JWT_SECRET", SECRET)
    pages = [(ROOT / name).read_text() for name in ("README.md", ".github/docs/browser.md")]
    shown: dict[str, Any] = {}
    for block in re.findall(r"```python\n(.*?)```", pages[-1], re.DOTALL):
        exec(compile(block, "browser.md", "exec"), shown)  # noqa: S102  # that is the point
    (tmp_path / "events.d.ts").write_text(declarations(shown["manager"]))
    (tmp_path / "package.json").write_text('{"type": "module"}')
    (tmp_path / "node_modules").symlink_to(package.parent)
    for number, example in enumerate(EXAMPLES.findall("".join(pages))):
        (tmp_path / f"example_{number}.tsx").write_text("".join(SCRIPT.findall(example)) or example)
    return tmp_path


@pytest.mark.long
@pytest.mark.parametrize("resolution", RESOLUTIONS)
def test_applications_in_typescript_and_the_documents_compile(examples: Path, resolution: str) -> None:
    files = sorted(examples.glob("*.tsx"))

    assert 4 == len(files)
    compile_strictly(FOLDER / "usage.ts", *files, resolution=resolution, folder=examples)


MISTAKES = [
    ('on("order.shipped"', 'on("order.shiped"'),
    ("data.items.join", "data.itmes.join"),
    ('"cart.add", { name }', '"cart.add", { nmae: name }'),
    ("const { total }", "const { totl: total }"),
    ("detail.from", "detail.form"),
    ('message.type === "order.shipped"', 'message.type === "order.sent"'),
]


@pytest.mark.long
def test_a_mistake_in_the_example_of_the_documents_does_not_compile(examples: Path) -> None:
    [example] = [text for each in examples.glob("*.tsx") if MISTAKES[0][0] in (text := each.read_text())]
    files = [examples / f"mistake_{number}.ts" for number in range(len(MISTAKES))]
    for file, (written, mistaken) in zip(files, MISTAKES, strict=True):
        assert written in example
        file.write_text(example.replace(written, mistaken))

    with pytest.raises(AssertionError) as refused:
        compile_strictly(*files, resolution="bundler", folder=examples)

    assert {file.name for file in files} == set(
        re.findall(r"^(\w+\.ts)\(\d+,\d+\): error", str(refused.value), re.MULTILINE)
    )


def test_the_package_contains_what_it_needs_and_nothing_else(package: Path) -> None:
    modules = ["react", "topics", "unmissed", "unmissed.min", "vue"]
    declarations = ["react", "types", "unmissed", "vue"]
    expected = {*(f"{name}.js" for name in modules), *(f"{name}.d.ts" for name in declarations)}
    parts = {f"client/{each.name}" for each in (SOURCE / "client").iterdir()}
    others = {"client.js.map", "README.md", "CHANGELOG.md", "LICENSE", "package.json"}
    files = {each.relative_to(package).as_posix() for each in package.rglob("*") if each.is_file()}

    assert expected | parts | others == files


@pytest.mark.long
def test_the_package_passes_publint(package: Path) -> None:
    need_packages()

    assert "All good!" in run(MODULES / ".bin" / "publint", "run", package, "--strict", "--pack", "false")


def test_the_package_and_the_server_name_the_same_places() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    package = json.loads((SOURCE / "package.json").read_text())

    repository = project["urls"]["Repository"]
    assert {
        "homepage": f"{repository}#readme",
        "bugs": project["urls"]["Issues"],
        "repository": {"type": "git", "url": f"git+{repository}.git", "directory": "src/unmissed/browser"},
        "license": project["license"],
        "description": f"{project['description'].partition(':')[0]}: the browser client.",
    } == {name: package[name] for name in ("homepage", "bugs", "repository", "license", "description")}


def test_the_package_has_the_version_of_the_server() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

    assert project["version"] == json.loads((SOURCE / "package.json").read_text())["version"]


@pytest.mark.long
def test_the_types_are_sound() -> None:
    need_packages()

    run("npm", "run", "types")


@pytest.mark.long
def test_what_is_generated_is_in_step(tmp_path: Path) -> None:
    need_packages()
    copy = tmp_path / "src" / "unmissed" / "browser"
    shutil.copytree(SOURCE, copy, ignore=shutil.ignore_patterns(*GENERATED))
    tests = tmp_path / "tests" / "browser"
    tests.mkdir(parents=True)
    for name in ("package.json", "generate.js", "internal_names.txt"):
        shutil.copy(FOLDER / name, tests)
    (tests / "node_modules").symlink_to(MODULES)

    run("npm", "run", "generate", cwd=tests)

    committed, generated = (
        {each.name: each.read_text() for pattern in GENERATED for each in folder.glob(pattern)}
        for folder in (SOURCE, copy)
    )
    assert generated == committed, "run: npm run generate --prefix tests/browser"


def test_the_source_map_has_all_modules_and_no_path_of_this_machine() -> None:
    source_map = json.loads((SOURCE / "client.js.map").read_text())

    parts = {f"client/{each.name}" for each in (SOURCE / "client").iterdir()}
    assert {*parts, "unmissed.js"} == set(source_map["sources"])
    assert [(SOURCE / name).read_text() for name in source_map["sources"]] == source_map["sourcesContent"]
    assert "//# sourceMappingURL=client.js.map\n" in (SOURCE / "unmissed.min.js").read_text()


@pytest.mark.long
def test_the_javascript_keeps_its_rules() -> None:
    need_packages()

    run("npm", "run", "lint")


def test_no_name_that_is_shortened_is_public() -> None:
    """The served file has shorter names of properties that neither applications nor servers see."""
    internal = set((FOLDER / "internal_names.txt").read_text().split())

    public = re.findall(r"^\s*(?:readonly )?(\w+)\??[:(]", (SOURCE / "types.d.ts").read_text(), re.MULTILINE)

    assert {"sequence_number", "onMessage", "connectionId", "expires_in"} < set(public)
    assert set() == internal & set(public)


def test_the_client_is_small() -> None:
    assert len(gzip.compress((SOURCE / "unmissed.min.js").read_bytes(), 9)) <= MAX_BYTES


@pytest.mark.parametrize("wrapper", ["react.js", "vue.js"])
def test_the_wrappers_of_frameworks_are_short(wrapper: str) -> None:
    assert len((SOURCE / wrapper).read_text().splitlines()) < 120


def test_the_lock_file_names_no_registry() -> None:
    assert "resolved" not in (FOLDER / "package-lock.json").read_text()
