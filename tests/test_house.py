"""The house rules that a program can check: layers, purity, sizes, registrations, docstrings."""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
CORE = ROOT / "core" / "mqtrio"

# Imports go down only. Modules of one tier don't know each other, except in the tiers of PEERS.
TIERS: tuple[frozenset[str], ...] = (
    frozenset({"errors", "reasons", "fields", "settings", "clock", "log"}),
    frozenset({"wire"}),
    frozenset({"state"}),
    frozenset({"hooks", "store"}),
    frozenset({"engine"}),
    frozenset({"net"}),
    frozenset({"broker", "client", "config", "opening", "info", "installed"})
    | {"reload", "standing_in", "toml_lines", "stacks"},
    frozenset({"embed"}),
    frozenset({"testing", "cli"}),
    frozenset({"pytest_plugin"}),
    frozenset({"__init__", "__main__"}),
)
PEERS = (0, 6, 10)
MODULES = frozenset[str]().union(*TIERS)

# wire and state are pure, and mypyc compiles them: values in, values out.
PURE = ("wire", "state")
PURE_MAY_IMPORT = {
    *("abc", "bisect", "collections", "enum", "functools", "heapq", "itertools", "math"),
    *("operator", "re", "struct", "typing", "mqtrio"),
}
PURE_MAY_IMPORT_OF_CORE = {"errors", "reasons", *PURE}

# Third-party and system modules with one home each in core: module -> top-level names.
ONLY_IN = {
    "pluggy": {"hooks", "__init__"},
    "cattrs": {"config", "fields"},
    "socket": {"net", "testing"},
    "select": {"net"},
    "selectors": {"net"},
    "ssl": {"net"},
    "argparse": {"cli"},
    "mqtrio_plugins": set[str](),
}

LONGEST_FILE = 500
# File -> why it is one file all the same.
LONG_FILES = {"core/mqtrio/wire/packets.py": "15 packet types, each a class of slots; no logic"}

MADE_MUTABLE_BY = {
    *("list", "dict", "set", "bytearray", "deque", "defaultdict", "OrderedDict", "Counter"),
    *("count", "cycle", "local", "Lock", "RLock", "Event", "Condition", "Queue", "ContextVar"),
}
MUTATORS = {
    *("append", "extend", "insert", "remove", "pop", "popitem", "clear", "update", "setdefault"),
    *("add", "discard", "appendleft", "popleft", "sort", "reverse"),
}
CACHES = {"cache", "lru_cache"}


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def sources(*folders: str) -> list[Path]:
    found = (path for folder in folders for path in (ROOT / folder).rglob("*.py"))
    return sorted(path for path in found if not set(path.parts) & {"node_modules", "build"})


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Line and absolute name of everything that a file imports, also inside functions."""
    package = path.relative_to(ROOT).parts[1:-1]
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            start = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            module = ".".join(part for part in (start, node.module or "") if part)
            for alias in node.names:
                yield node.lineno, f"{module}.{alias.name}"


def top_of(path: Path) -> str:
    """The name in mqtrio that a file of core belongs to: `wire`, `settings`, ..."""
    first = path.relative_to(CORE).parts[0]
    return first.removesuffix(".py")


def tier_of(name: str) -> int:
    for number, tier in enumerate(TIERS):
        if name in tier:
            return number
    pytest.fail(f"mqtrio.{name} stands in no tier: give it one in {__name__}")


CORE_FILES = sources("core")
IDS = [name_of(path) for path in CORE_FILES]


@pytest.mark.parametrize("path", CORE_FILES, ids=IDS)
def test_imports_go_one_way(path: Path) -> None:
    own = top_of(path)
    tier = tier_of(own)
    for line, imported in imports(path):
        parts = imported.split(".")
        if parts[0] != "mqtrio":
            continue
        other = parts[1] if len(parts) > 1 and parts[1] in MODULES else "__init__"
        if other == own:
            continue
        theirs = tier_of(other)
        assert theirs < tier or (theirs == tier and tier in PEERS), (
            f"{name_of(path)}:{line}: {own} may not import {imported}"
        )


@pytest.mark.parametrize("path", [path for path in CORE_FILES if top_of(path) in PURE], ids=name_of)
def test_wire_and_state_are_pure(path: Path) -> None:
    for line, imported in imports(path):
        first, *rest = imported.split(".")
        allowed = first in PURE_MAY_IMPORT
        if first == "mqtrio":
            allowed = bool(rest) and rest[0] in PURE_MAY_IMPORT_OF_CORE
        assert allowed, f"{name_of(path)}:{line}: a pure module may not import {imported}"


@pytest.mark.parametrize("path", CORE_FILES, ids=IDS)
def test_each_outside_module_has_its_home(path: Path) -> None:
    for line, imported in imports(path):
        homes = ONLY_IN.get(imported.split(".")[0])
        assert homes is None or top_of(path) in homes, (
            f"{name_of(path)}:{line}: {imported} is imported by {sorted(homes or ())} only"
        )


@pytest.mark.parametrize("path", sources("plugins", "contrib", "examples"), ids=name_of)
def test_plugins_and_examples_use_the_public_door(path: Path) -> None:
    if "tests" in path.parts:
        return
    doors = ("mqtrio", "mqtrio.embed", "mqtrio.testing")
    modules = []
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            modules += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            modules.append((node.lineno, node.module or ""))
    for line, module in modules:
        assert module.split(".")[0] != "mqtrio" or module in doors, (
            f"{name_of(path)}:{line}: {module} is inside; import mqtrio"
        )


def test_plugins_in_the_box_bring_no_dependency() -> None:
    known = {"mqtrio", "mqtrio_plugins", "trio", "attrs", *sys.stdlib_module_names}
    for path in sources("plugins"):
        for line, imported in imports(path):
            assert imported.split(".")[0] in known, f"{name_of(path)}:{line}: {imported}"


def test_files_are_short() -> None:
    lengths = {
        name_of(path): len(path.read_text(encoding="utf-8").splitlines())
        for path in sources("core", "plugins", "contrib", "examples", "tools")
        if "tests" not in path.parts
    }
    long = {name: length for name, length in lengths.items() if length > LONGEST_FILE}
    assert set(long) == set(LONG_FILES), "split on a noun of the protocol, or say why in LONG_FILES"


@pytest.mark.parametrize("path", CORE_FILES, ids=IDS)
def test_core_keeps_no_state_in_modules(path: Path) -> None:
    """Two brokers can live in one process. A table is a constant: upper case, never written to."""
    assert not list(_module_state(tree(path), name_of(path)))


def _module_state(module: ast.Module, where: str) -> Iterator[str]:
    tables = set()
    for node in module.body:
        value = getattr(node, "value", None)
        if not isinstance(node, ast.Assign | ast.AnnAssign) or value is None:
            continue
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        names = {target.id for target in targets if isinstance(target, ast.Name)}
        if isinstance(value, ast.Call) and _called(value) in MADE_MUTABLE_BY:
            yield f"{where}:{node.lineno}: {_called(value)}() at module level"
        if isinstance(
            value, ast.List | ast.Dict | ast.Set | ast.ListComp | ast.DictComp | ast.SetComp
        ):
            tables |= names
            for name in names:
                if name != "__all__" and name != name.upper():
                    yield f"{where}:{node.lineno}: {name} is mutable and no constant"
    for inner in ast.walk(module):
        if isinstance(inner, ast.Global):
            yield f"{where}:{inner.lineno}: global {', '.join(inner.names)}"
        elif isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef):
            for decorator in inner.decorator_list:
                if _called(decorator) in CACHES:
                    yield f"{where}:{inner.lineno}: a cache outlives its broker: {inner.name}"
        elif isinstance(inner, ast.Subscript) and not isinstance(inner.ctx, ast.Load):
            if isinstance(inner.value, ast.Name) and inner.value.id in tables:
                yield f"{where}:{inner.lineno}: {inner.value.id} is written to"
        elif isinstance(inner, ast.Call) and isinstance(inner.func, ast.Attribute):
            held = inner.func.value
            if isinstance(held, ast.Name) and held.id in tables and inner.func.attr in MUTATORS:
                yield f"{where}:{inner.lineno}: {held.id}.{inner.func.attr}()"


def _called(node: ast.expr) -> str:
    if isinstance(node, ast.Call):
        node = node.func
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


@pytest.mark.parametrize(
    "text",
    [
        "seen = {}",
        "SEEN = deque()",
        "TABLE = {}\ndef f(): TABLE[1] = 2",
        "TABLE = []\ndef f(): TABLE.append(2)",
        "def f():\n    global x\n    x = 1",
        "@functools.lru_cache(100)\ndef f(): pass",
    ],
)
def test_module_state_is_seen(text: str) -> None:
    assert list(_module_state(ast.parse(text), "example"))


@cache
def _classes() -> dict[str, ast.ClassDef]:
    return {
        node.name: node
        for path in CORE_FILES
        for node in ast.walk(tree(path))
        if isinstance(node, ast.ClassDef)
    }


def _inherits_docstring(owner: ast.ClassDef, method: str) -> bool:
    """Whether a base class in core says what the method means."""
    for base in owner.bases:
        name = _called(base.value if isinstance(base, ast.Subscript) else base)
        parent = _classes().get(name)
        if parent is None or parent is owner:
            continue
        for node in parent.body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name == method:
                return ast.get_docstring(node) is not None or _inherits_docstring(parent, method)
        if _inherits_docstring(parent, method):
            return True
    return False


def _is_protocol(owner: ast.ClassDef) -> bool:
    return any(_called(base) == "Protocol" for base in owner.bases)


def _undocumented(
    body: list[ast.stmt], where: str, owner: ast.ClassDef | None = None
) -> Iterator[str]:
    for node in body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            if ast.get_docstring(node) is None:
                yield f"{where}:{node.lineno}: class {node.name}"
            yield from _undocumented(node.body, where, node)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            decorators = {_called(decorator) for decorator in node.decorator_list}
            if node.name.startswith("_") or decorators & {"overload", "setter"}:
                continue
            if owner is not None and "property" in decorators and _is_protocol(owner):
                continue  # the attribute of a shape: the class says what it is
            if ast.get_docstring(node) is None and not (
                owner is not None and _inherits_docstring(owner, node.name)
            ):
                yield f"{where}:{node.lineno}: {node.name}"


@pytest.mark.parametrize("path", CORE_FILES, ids=IDS)
def test_everything_public_has_a_docstring(path: Path) -> None:
    missing = list(_undocumented(tree(path).body, name_of(path)))
    if ast.get_docstring(tree(path)) is None:
        missing.append(f"{name_of(path)}:1: the module")
    assert not missing, "say what it means"


@pytest.mark.parametrize(
    "path", [path for path in CORE_FILES if top_of(path) != "cli"], ids=name_of
)
def test_only_the_command_line_prints(path: Path) -> None:
    calls = (node for node in ast.walk(tree(path)) if isinstance(node, ast.Call))
    lines = [n.lineno for n in calls if isinstance(n.func, ast.Name) and n.func.id == "print"]
    assert not lines, f"{name_of(path)}:{lines}: use logging"


# What belongs to one machine or one registry, and would break or mislead elsewhere.
PLACES = re.compile(
    r"(?<![\w.~-])/(?:root|work|home|Users|opt)/\w"
    r"|\b(?:pypi|pythonhosted|npmjs|deb\.debian|anaconda)\.(?:org|com)\b"
)


def _repository_files() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    ).stdout.decode()
    paths = (ROOT / name for name in listed.split("\0") if name)
    return [path for path in paths if path.is_file() and path != Path(__file__).resolve()]


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="only in a git checkout")
def test_no_file_names_a_machine_or_a_registry() -> None:
    found = []
    for path in _repository_files():
        for number, line in enumerate(path.read_bytes().splitlines(), 1):
            if PLACES.search(line.decode("utf-8", "replace")):
                found.append(f"{name_of(path)}:{number}: {line.decode('utf-8', 'replace')[:80]}")
    assert not found


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="only in a git checkout")
def test_no_lock_file_is_kept() -> None:
    locks = {"uv.lock", "package-lock.json", "poetry.lock", "Pipfile.lock", "yarn.lock"}
    assert not [name_of(path) for path in _repository_files() if path.name in locks]


@cache
def project() -> dict[str, object]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def in_project(*keys: str) -> object:
    value: object = project()
    for key in keys:
        assert isinstance(value, dict)
        value = value[key]
    return value


def test_requirements_dev_is_the_groups() -> None:
    lines = (ROOT / "requirements-dev.txt").read_text(encoding="utf-8").splitlines()
    wanted = [line for line in lines if line and not line.startswith("#")]
    contrib = _strings("dependency-groups", "contrib")
    assert wanted == [
        *_strings("dependency-groups", "dev"),
        *(f"-e contrib/{name.removeprefix('mqtrio-')}" for name in contrib),
    ]


#: uvloop can't be installed on Windows.
LOWER_BOUND = r"[\w.-]+(\[[\w,]+\])?>=[\d.]+(; sys_platform != 'win32')?"


def test_dependencies_have_lower_bounds_only() -> None:
    for requirement in (
        *_strings("project", "dependencies"),
        *_strings("dependency-groups", "dev"),
    ):
        assert re.fullmatch(LOWER_BOUND, requirement), requirement


def _strings(*keys: str) -> list[str]:
    values = in_project(*keys)
    assert isinstance(values, list)
    return [str(value) for value in values]


def test_every_contrib_is_registered() -> None:
    folders = sorted(path.parent.name for path in (ROOT / "contrib").glob("*/pyproject.toml"))
    names = [f"mqtrio-{folder}" for folder in folders]
    assert sorted(_strings("dependency-groups", "contrib")) == names
    assert sorted(_strings("tool", "mypy", "mypy_path")) == sorted(
        ["core", "plugins", ".", *(f"contrib/{folder}/src" for folder in folders)]
    )
    if folders:
        assert in_project("tool", "uv", "sources") == {
            name: {"workspace": True} for name in names
        } | {"mqtrio": {"workspace": True}}
    for folder in folders:
        home = ROOT / "contrib" / folder
        assert (home / "README.md").exists()
        assert (home / "tests").is_dir()
        assert (home / "src" / f"mqtrio_{folder.replace('-', '_')}" / "py.typed").exists()
        own = tomllib.loads((home / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        assert own["name"] == f"mqtrio-{folder}"
        assert own["entry-points"]["mqtrio.plugins"]
