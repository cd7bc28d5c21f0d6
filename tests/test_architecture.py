"""The walls of docs/architecture.md, held by reading the source, and what importing bossa may cost, seen from fresh processes."""

from __future__ import annotations

import ast
import os
import pickle
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "src" / "bossa"
FILES = sorted(SOURCE.rglob("*.py"))

# Each layer may import itself (where it is one package or module) and every layer above it in this list; siblings never meet.
LAYERS: list[set[str]] = [
    {"errors", "types", "lazy"},
    {"kernels"},
    {"state"},
    {"design", "estimate"},
    {"explore", "assimilate", "generate"},
    {"infer"},
    {"comparison", "cycle", "power"},
    {"report"},
    {"fluent", "io"},
    {"causal"},
]
RANK = {name: rank for rank, layer in enumerate(LAYERS) for name in layer}
LOWEST = {"errors", "types", "lazy"}  # these two may meet
FREE_OF_LAYERS = {"datasets"}  # data files and their reader: needs errors only, nothing inside bossa needs it

# (importing module, imported package): why the wall has a door here
DOORS: dict[tuple[str, str], str] = {
    ("__init__", "*"): "public names, resolved lazily; the TYPE_CHECKING block tells type checkers where they live",
    ("assimilate.result", "report"): "a result is held without a Model: its plot() and explain() load report when they are asked",
    ("assimilate.gates", "report"): "the same of a calibration's plot()",
    ("state.posterior", "report"): "the same of a Posterior's explain()",
}

# Third-party packages, and the only places that may import them (path prefixes under src/bossa).
ANYWHERE = {"numpy", "scipy", "attrs", "attr"}
ONLY_IN = {
    "polars": [
        *("design/", "explore/", "assimilate/", "infer/", "comparison/", "report/", "causal/", "datasets/"),
        *("fluent.py", "io.py", "power.py", "generate.py"),
    ],
    "narwhals": ["design/data.py"],
    "joblib": ["estimate/many.py"],
    "matplotlib": ["report/plot/"],
    "great_tables": ["report/export.py"],
    "numba": ["kernels/_numba.py"],
    "jax": ["kernels/_jax.py"],
    "tqdm": ["estimate/many.py"],
    "threadpoolctl": ["kernels/threads.py"],
    "pandas": [],
    "formulae": [],
    "statsmodels": [],
}


def module_name(path: Path) -> str:
    """`report.plot.params` for report/plot/params.py, `__init__` for the package itself."""
    parts = list(path.relative_to(SOURCE).with_suffix("").parts)
    if parts[-1] == "__init__" and len(parts) > 1:
        parts.pop()
    return ".".join(parts)


def layer_of(module: str) -> str:
    return module.split(".")[0]


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """(line, absolute dotted name) of every import: function-level and TYPE_CHECKING ones too."""
    package = ["bossa", *path.relative_to(SOURCE).parts[:-1]]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            base = base + (node.module.split(".") if node.module else [])
            # `from . import kernels` names modules, `from .kernels import linalg` either: the longer name is right for walls
            yield from ((node.lineno, ".".join([*base, alias.name])) for alias in node.names)


def crosses_a_wall(importer: str, imported: str) -> bool:
    """Does module `importer` (dotted, below bossa) reach to the right, or to a sibling?"""
    here, there = layer_of(importer), layer_of(imported)
    if (importer, "*") in DOORS or (importer, there) in DOORS or here == there or {here, there} <= LOWEST:
        return False
    if here in FREE_OF_LAYERS:
        return there not in LOWEST
    if there in FREE_OF_LAYERS:
        return True
    return RANK[there] >= RANK[here]


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_every_module_has_a_place(path):
    name = layer_of(module_name(path))
    assert name in RANK or name in FREE_OF_LAYERS or name == "__init__", f"{name} is in no layer of LAYERS"


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_imports_point_to_the_left(path):
    importer = module_name(path)
    wrong = [
        f"line {line}: {name}"
        for line, name in imports(path)
        if name.startswith("bossa.") and layer_of(name.removeprefix("bossa.")) in (RANK.keys() | FREE_OF_LAYERS)
        if crosses_a_wall(importer, name.removeprefix("bossa."))
    ]
    assert not wrong, f"{importer} imports to its right or from a sibling: {wrong}"


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_third_party_packages_stay_where_they_belong(path):
    where = path.relative_to(SOURCE).as_posix()
    wrong = []
    for line, name in imports(path):
        top = name.split(".")[0]
        if top in ANYWHERE or top == "bossa" or top in sys.stdlib_module_names:
            continue
        if top not in ONLY_IN:
            wrong.append(f"line {line}: {top} is not a dependency")
        elif not any(where.startswith(prefix) for prefix in ONLY_IN[top]):
            wrong.append(f"line {line}: {top} belongs in {ONLY_IN[top] or 'tests only'}")
    assert not wrong, f"{where}: {wrong}"


def test_kernels_know_arrays_only():
    """kernels/ imports numpy, scipy, attrs and the standard library; numba, jax and threadpoolctl in their own files."""
    for path in FILES:
        if layer_of(module_name(path)) == "kernels":
            tops = {name.split(".")[0] for _, name in imports(path)} - sys.stdlib_module_names - ANYWHERE
            tops -= {"bossa", "numba", "jax", "threadpoolctl"}
            assert not tops, f"{path.name} imports {tops}"


def forbidden(tree: ast.AST) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ExceptHandler):
            caught = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
            if node.type is None or {getattr(c, "id", "") for c in caught} & {"Exception", "BaseException"}:
                yield node.lineno, "catches everything"
        elif isinstance(node, ast.Name) and node.id == "hasattr":
            yield node.lineno, "hasattr"
        elif isinstance(node, ast.Global):
            yield node.lineno, "global"
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("eval", "exec"):
            yield node.lineno, node.func.id


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_no_catch_all_no_hasattr_no_global_no_eval(path):
    found = list(forbidden(ast.parse(path.read_text(encoding="utf-8"))))
    assert not found, f"{module_name(path)}: {found}"


@pytest.mark.parametrize(
    ("source", "word"),
    [
        ("try: pass\nexcept: pass", "everything"),
        ("try: pass\nexcept (ValueError, Exception): pass", "everything"),
        ("def f(x):\n  return hasattr(x, 'y')", "hasattr"),
        ("def f():\n  global x", "global"),
        ("eval('1')", "eval"),
    ],
)
def test_the_reader_of_forbidden_words_sees_them(source, word):
    assert any(word in what for _, what in forbidden(ast.parse(source)))


@pytest.mark.parametrize(
    ("importer", "imported", "crosses"),
    [
        ("kernels.linalg", "state.fit", True),
        ("state.fit", "kernels.linalg", False),
        ("design.encode", "estimate.lm", True),
        ("report.table", "fluent", True),
        ("fluent", "report.table", False),
        ("infer.boot", "explore.grid", False),
        ("estimate.lm", "estimate.glm", False),
        ("datasets", "fluent", True),
        ("fluent", "datasets", True),
        ("errors", "types", False),
    ],
)
def test_the_reader_of_walls_sees_them(importer, imported, crosses):
    assert crosses_a_wall(importer, imported) is crosses


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_module_says_what_it_answers(path):
    text = path.read_text(encoding="utf-8")
    assert not text.strip() or ast.get_docstring(ast.parse(text)), f"{module_name(path)} has no docstring"


# ---------------------------------------------------------------------------------------------------- fresh processes


def fresh(code: str) -> str:
    """Run `code` in a new interpreter; its standard output."""
    plain = {**os.environ, "PYTHONPATH": ""}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=120, env=plain)
    assert done.returncode == 0, done.stderr
    return done.stdout


HEAVY = ["pandas", "statsmodels", "scipy.stats", "scipy.optimize", "matplotlib", "numba", "jax", "formulae", "joblib", "great_tables"]


def test_import_bossa_is_cheap():
    loaded = fresh("import bossa, sys; print([n for n in sys.modules])")
    assert not [name for name in [*HEAVY, "numpy", "polars", "scipy"] if repr(name) in loaded]


@pytest.mark.parametrize(
    "call",
    [
        "model('mpg ~ wt', load_dataset('mtcars')).fit().infer().params",
        "model('am ~ wt', load_dataset('mtcars'), family='binomial').fit().infer().params",
        "model('mpg ~ wt', load_dataset('mtcars')).fit().infer(how='boot', n_boot=20, seed=1).params",
        "model('mpg ~ wt', load_dataset('mtcars')).fit().infer(how='perm', n_perm=20, seed=1).params",
    ],
)
def test_a_small_fit_loads_nothing_heavy(call):
    loaded = fresh(f"from bossa import model, load_dataset; import sys; {call}; print([n for n in sys.modules])")
    assert not [name for name in [*HEAVY, "bossa.estimate.lmm"] if repr(name) in loaded]


OPTIONAL = {"_numba", "_jax", "plot", "export"}  # need an extra
MODULES = [f"bossa.{module_name(p)}" for p in FILES if not OPTIONAL & set(p.with_suffix("").parts) and module_name(p) != "__init__"]


@pytest.mark.parametrize("order", ["forwards", "backwards", "names first"])
def test_modules_import_in_any_order(order):
    """A module that another must have imported first is a hidden cycle."""
    names = MODULES if order == "forwards" else MODULES[::-1]
    lines = [f"import {name}" for name in names]
    if order == "names first":
        lines = ["from bossa import model, load_dataset, show_datasets", *lines]
    fresh("\n".join(lines))


@pytest.mark.parametrize("name", sorted({name for name in MODULES if name.count(".") == 1} | {"bossa.design.encode", "bossa.report.table"}))
def test_each_package_imports_alone(name):
    fresh(f"import {name}")


def test_no_public_callable_bears_the_name_of_a_module():
    import bossa

    modules = {path.stem for path in SOURCE.glob("*.py")} | {path.name for path in SOURCE.iterdir() if path.is_dir()}
    assert not modules & set(bossa.__all__)


@pytest.mark.parametrize("family", ["gaussian", "binomial"])
def test_a_model_unpickles_in_a_fresh_process(family, tmp_path):
    """Fitted and inferred models travel: the frame read elsewhere is the frame here, and the model can go on."""
    from bossa import load_dataset, model

    formula = "mpg ~ scale(wt) * factor(cyl)" if family == "gaussian" else "am ~ wt"
    m = model(formula, load_dataset("mtcars"), family=family).fit().infer()
    path = tmp_path / "model.pickle"
    path.write_bytes(pickle.dumps(m))
    read = f"import pickle, pathlib; m = pickle.loads(pathlib.Path({str(path)!r}).read_bytes())"
    again = fresh(f"{read}; print(m.params.write_json()); m.fit().infer('asymp').summary()")
    assert again.strip() == m.params.write_json()


# ---------------------------------------------------------------------------------------------------- the project's files

TEXT = {".py", ".R", ".md", ".toml", ".ipynb", ".json", ".yml", ".sh", ".csv", ".txt", ".cfg", ""}
PLACES = re.compile(r"(?<![\w.])(/tmp/|/home/\w|/root/|/Users/\w|[A-Z]:\\\\Users)")


def project_files() -> list[Path]:
    listed = subprocess.run(["git", "ls-files"], capture_output=True, text=True, cwd=ROOT, check=False).stdout.split("\n")
    return [ROOT / name for name in listed if name and Path(name).suffix in TEXT and (ROOT / name).is_file()]


def test_no_file_names_a_place_on_one_machine():
    here = {str(ROOT), str(ROOT.parent) + "/", str(Path.home()) + "/"} - {"//", "/"}
    found = []
    for path in project_files():
        text = path.read_text(encoding="utf-8", errors="ignore")
        match = PLACES.search(text)
        if path != Path(__file__).resolve() and (match or any(place in text for place in here)):
            found.append(path.relative_to(ROOT).as_posix())
    assert not found, f"these files name a place that exists on one machine only: {found}"
