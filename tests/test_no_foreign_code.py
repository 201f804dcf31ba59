"""Nothing in the project runs what it reads: no pickles, no `eval`, no shell, no YAML that makes objects."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MODULES = {"pickle", "cloudpickle", "dill", "marshal", "shelve", "joblib"}
CALLS = {"eval", "exec", "compile", "os.system", "os.popen", "yaml.load", "yaml.load_all", "yaml.unsafe_load"}
CALLS |= {"yaml.full_load", "ray.cloudpickle.loads", "pandas.read_pickle", "pd.read_pickle", "numpy.fromregex"}
ALLOWED = {
    "petl/convert.py: import pickle",  # for the name of an error of torch.load(weights_only=True)
}


def _name(node: ast.AST) -> str:
    if isinstance(node, ast.Attribute):
        return f"{_name(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def _is(node: ast.expr | None, value: object) -> bool:
    return isinstance(node, ast.Constant) and node.value is value


def findings(source: str) -> Iterator[str]:
    """What could run foreign code, in words."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (f"import {a.name}" for a in node.names if a.name.partition(".")[0] in MODULES)
        elif isinstance(node, ast.ImportFrom):
            if (node.module or "").partition(".")[0] in MODULES:
                yield f"from {node.module}"
        elif isinstance(node, ast.Call):
            name, options = _name(node.func), {k.arg: k.value for k in node.keywords}
            if name in CALLS:
                yield name
            if name.endswith("torch.load") and not _is(options.get("weights_only"), True):
                yield "torch.load without weights_only=True"
            for option in ("shell", "allow_pickle", "trust_remote_code"):
                if option in options and not _is(options[option], False):
                    yield f"{option} in {name}"


@pytest.mark.parametrize("package", ["petl", "search", "trainables"])
def test_nothing_is_run_that_was_read(package: str) -> None:
    files = sorted((ROOT / package).rglob("*.py"))
    assert len(files) > 20
    found = {f"{file.relative_to(ROOT).as_posix()}: {what}" for file in files for what in findings(file.read_text())}
    assert found <= ALLOWED


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from joblib import load",
        "import torch\ntorch.load(p)",
        "torch.load(p, weights_only=False)",
        "np.load(p, allow_pickle=True)",
        "subprocess.run(x, shell=flag)",
        "yaml.load(text, Loader=L)",
        "eval(x)",
        "AutoModel.from_pretrained(x, trust_remote_code=True)",
    ],
)
def test_it_is_found(source: str) -> None:
    assert list(findings(source))
