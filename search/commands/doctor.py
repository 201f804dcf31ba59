"""`petl-search doctor`: is everything there that a search needs?"""

from __future__ import annotations

import platform
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from petl.errors import UserError
from search import environment
from search.resources import local_resources, plan_groups


def examine(mlflow_uri: str | None, out: Console) -> int:
    """Print one line per finding; returns 0 when nothing is wrong, else 1."""
    checks: list[tuple[str, Callable[[], str]]] = [
        ("Python", lambda: f"{platform.python_version()} on {environment.processor()}"),
        ("packages", _packages),
        ("torchaudio", _torchaudio),
        ("devices", _devices),
        ("precision", _precision),
        ("at a time", lambda: str(plan_groups(local_resources()))),
        ("run directory", lambda: _place(Path.cwd())),
        ("feature cache", _cache),
        ("temporary", lambda: _place(Path(tempfile.gettempdir()))),
        ("backbone", _backbone),
        ("MLflow", lambda: _mlflow(mlflow_uri)),
    ]
    wrong = 0
    for name, check in checks:
        try:
            finding, mark = check(), "[green]ok[/]  "
        except Exception as error:  # whatever is wrong is what this command is there to say
            finding, mark = str(error).strip() or type(error).__name__, "[red]bad[/] "
            wrong += 1
        out.print(f"{mark}{name:<15}{escape(finding)}", soft_wrap=True)
    out.print("everything is there" if not wrong else f"[red]{wrong} of {len(checks)} checks failed[/]")
    return 1 if wrong else 0


def _packages() -> str:
    found = environment.versions()["versions"]
    missing = [name for name, version in found.items() if version == "not installed"]
    if missing:
        raise UserError(f"not installed: {', '.join(missing)}; run `uv sync`")
    return ", ".join(f"{name} {version}" for name, version in found.items() if name != "python")


def _torchaudio() -> str:
    import torch
    import torchaudio

    theirs, ours = torchaudio.__version__.split("+")[0], torch.__version__.split("+")[0]
    if theirs.rsplit(".", 1)[0] != ours.rsplit(".", 1)[0]:
        raise UserError(f"torchaudio {theirs} was built for another torch than {ours}; install matching versions")
    import soundfile

    return f"{theirs}, decoding with libsndfile {soundfile.__libsndfile_version__}"


def _devices() -> str:
    import torch

    if not torch.cuda.is_available():
        return f"no CUDA device; {local_resources().cpus} CPUs"
    names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return f"{len(names)} CUDA device{'s' if len(names) > 1 else ''}: {', '.join(names)}"


AST_BASE_WIDTH = 768


def _precision() -> str:
    import torch

    from trainables.precision import choose

    return choose("auto", torch.device("cuda" if torch.cuda.is_available() else "cpu"), AST_BASE_WIDTH)[1]


def _place(path: Path) -> str:
    with tempfile.NamedTemporaryFile(dir=path):
        pass
    free = shutil.disk_usage(path).free / 2**30
    if free < 0.2:
        raise UserError(f"{path}: only {free * 1024:.0f} MB free")
    return f"{path} is writable, {free:.0f} GB free"


def _cache() -> str:
    from trainables.data import default_cache_root

    root = default_cache_root()
    root.mkdir(parents=True, exist_ok=True)
    return _place(root)


def _backbone() -> str:
    from petl.counts import BackboneShape
    from petl.hub import read_config

    shape = BackboneShape.from_config(read_config("embedded"))
    return f"embedded: width {shape.hidden}, {shape.layers} layers"


def _mlflow(uri: str | None) -> str:
    from search.tracking import check, default_uri

    return check(uri or default_uri(), strict=True)
