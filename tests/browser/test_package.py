"""The JavaScript of the client: its tests in Node.js, its types, its size, and its npm package."""

import gzip
import json
import re
import shutil
import tarfile
import tomllib
from pathlib import Path

import pytest

from browser.node import FOLDER, MODULES, TYPESCRIPT, need_packages, run, run_tests

ROOT = FOLDER.parents[1]
SOURCE = ROOT / "src" / "unmissed" / "browser"
MAX_BYTES = 8_000
PACKAGE_TESTS = FOLDER / "package.test.js"
GENERATED = ("*.d.ts", "unmissed.min.js", "client.js.map")

pytestmark = pytest.mark.live


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the package as npm installs it, where the tests in Node.js find it."""
    folder = tmp_path_factory.mktemp("package")
    [packed] = json.loads(run("npm", "pack", SOURCE, "--json", "--pack-destination", folder))
    installed = MODULES / "unmissed"
    shutil.rmtree(installed, ignore_errors=True)
    with tarfile.open(folder / packed["filename"]) as archive:
        archive.extractall(folder, filter="data")
    return shutil.copytree(folder / "package", installed)


@pytest.mark.parametrize(
    "script",
    [
        pytest.param(each, marks=[pytest.mark.long] * (each.name == "networks.test.js"), id=each.name)
        for each in sorted(set(FOLDER.glob("*.test.js")) - {PACKAGE_TESTS})
    ],
)
def test_the_tests_in_node_pass(script: Path) -> None:
    run_tests(script)


@pytest.mark.long
def test_the_package_works_as_it_is_installed(package: Path) -> None:
    need_packages()

    assert package.exists()
    run_tests(PACKAGE_TESTS)


@pytest.mark.long
def test_applications_in_typescript_can_use_the_package(package: Path) -> None:
    assert package.exists()
    options = (
        "--strict",
        "--noEmit",
        "--target",
        "es2022",
        "--module",
        "nodenext",
        "--lib",
        "es2022,dom",
        "--skipLibCheck",
    )

    run(TYPESCRIPT, *options, "usage.ts")


def test_the_package_contains_what_it_needs_and_nothing_else(package: Path) -> None:
    modules = ["react", "types", "unmissed", "vue"]
    expected = {f"{module}{suffix}" for module in modules for suffix in (".js", ".d.ts")}
    parts = {f"client/{each.name}" for each in (SOURCE / "client").iterdir()}
    files = {each.relative_to(package).as_posix() for each in package.rglob("*") if each.is_file()}

    assert expected | parts | {"unmissed.min.js", "client.js.map", "README.md", "package.json"} == files


def test_the_package_has_the_version_of_the_server() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

    assert project["version"] == json.loads((SOURCE / "package.json").read_text())["version"]


@pytest.mark.long
def test_the_types_are_sound_and_what_is_generated_is_in_step(tmp_path: Path) -> None:
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
    assert len((SOURCE / wrapper).read_text().splitlines()) < 40


def test_the_lock_file_names_no_registry() -> None:
    assert "resolved" not in (FOLDER / "package-lock.json").read_text()
