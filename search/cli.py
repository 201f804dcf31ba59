"""The command line: thin functions that turn words into requests and errors into messages (torch-free).

Exit status: 0 done; 2 the request is wrong (one message, nothing written); 1 the work failed (what was finished
is kept); 130 interrupted, can be resumed.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from typer.core import TyperGroup

from petl.errors import UserError
from search import environment

_out = Console(highlight=False)
_err = Console(stderr=True, highlight=False)

app = typer.Typer(
    name="petl-search",
    help="Search for the best way to adapt a frozen audio transformer to your task.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)


class _NameOrCommand(TyperGroup):
    """A group whose first word may also be the name of something to show."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args and not args[0].startswith("-") and self.get_command(ctx, args[0]) is None:
            args = ["show", *args]
        return super().resolve_command(ctx, args)


_datasets = typer.Typer(
    cls=_NameOrCommand,
    subcommand_metavar="[NAME | check NAME PATH]",
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
)
app.add_typer(_datasets, name="datasets")
_door = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="markdown")

PathOption = Annotated[Path | None, typer.Option(exists=False)]
DeviceOption = Annotated[
    str | None, typer.Option(help="cpu, cuda, cuda:1, … (default: a GPU if there is one).", show_default=False)
]


def search(
    space: Annotated[Path | None, typer.Option(help="The space file to search.", show_default=False)] = None,
    data: Annotated[str | None, typer.Option(help="Where the recordings are.", show_default=False)] = None,
    dataset: Annotated[
        str | None, typer.Option(help="What they are (`petl-search datasets`).", show_default=False)
    ] = None,
    backbone: Annotated[
        str | None, typer.Option(help="Hub id or directory of a checkpoint.", show_default=False)
    ] = None,
    trials: Annotated[int | None, typer.Option(min=1, help="How many trials to start.", show_default=False)] = None,
    max_epochs: Annotated[
        int | None,
        typer.Option(min=1, help="Epochs of a trial that is not stopped early.", show_default=False),
    ] = None,
    time_budget: Annotated[str | None, typer.Option(help="Wall-clock limit: 90s, 30m, 2h.", show_default=False)] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Seed of the sampler and of every trial.", show_default=False)
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Any fixed key of the space; may be repeated."),
    ] = None,
    skip_bad_files: Annotated[
        bool, typer.Option("--skip-bad-files", help="Go on without unreadable, empty or too short clips.")
    ] = False,
    concurrent: Annotated[
        int | None, typer.Option(min=1, help="Trials at a time (default: what fits).", show_default=False)
    ] = None,
    workers_per_trial: Annotated[
        int | None, typer.Option(min=1, help="Processes that share a trial's batches (default: 1).", show_default=False)
    ] = None,
    gpus_per_worker: Annotated[
        float | None, typer.Option(min=0, help="GPUs, or a share of one, per process.", show_default=False)
    ] = None,
    cpus_per_worker: Annotated[
        int | None, typer.Option(min=1, help="CPUs per process (default: its share).", show_default=False)
    ] = None,
    address: Annotated[
        str | None, typer.Option(help="An existing Ray cluster (auto, or host:port).", show_default=False)
    ] = None,
    storage: Annotated[
        str | None,
        typer.Option(help="Where checkpoints go: a path all nodes see, or s3://, gs://.", show_default=False),
    ] = None,
    mlflow: Annotated[
        str | None,
        typer.Option(help="MLflow tracking URI (default: sqlite:///mlflow.db here).", show_default=False),
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="Run directory (default: runs/SPACE-TIME).", show_default=False)
    ] = None,
    resume: Annotated[
        str | None,
        typer.Option(
            help="Continue the search in this run directory, or at this place in --storage.", show_default=False
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check everything, show the plan, start nothing.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="A line per epoch too, without a terminal.")] = False,
) -> None:
    """Run a search: sample configurations, train them, stop the hopeless ones, export the best.

    **Example:** `python launch.py --space spaces/moa.yaml --dataset esc50 --data ~/ESC-50`
    """
    from search.request import Request
    from search.space import parse_assignments

    for option, value in (("resume", resume), ("address", address), ("storage", storage), ("mlflow", mlflow)):
        if value is not None and not value.strip():  # a variable of a script that was not set
            raise UserError(f"--{option} is empty; give it a value, or leave it out")
    overrides = parse_assignments(set_ or [])
    flags = {
        "data": data,
        "dataset": dataset,
        "backbone": backbone,
        "epochs": max_epochs,
        "seed": seed,
        "sampler.seed": seed,
        "budget.trials": trials,
        "budget.time": time_budget,
        "data.skip_bad_files": True if skip_bad_files else None,
    }
    overrides.update({key: value for key, value in flags.items() if value is not None})
    request = Request(
        space=space,
        overrides=overrides,
        output=output,
        resume=resume,
        address=address,
        concurrent=concurrent,
        workers_per_trial=workers_per_trial,
        gpus_per_worker=gpus_per_worker,
        cpus_per_worker=cpus_per_worker,
        storage=storage,
        mlflow=mlflow,
    )
    if dry_run:
        from search.commands.plan import show_plan

        show_plan(request, _out)
        return
    raise typer.Exit(_run(request, verbose))


def _run(request: Any, verbose: bool) -> int:
    from search.commands.finish import print_outcome
    from search.engine import run_search
    from search.live import make_view
    from search.request import Interrupted

    view = make_view(_out, verbose=verbose)
    try:
        outcome = run_search(request, view)
    except Interrupted:
        view.stop()
        _err.print("interrupted before the first trial; nothing was written")
        return 130
    except BaseException:
        view.stop()
        raise
    return print_outcome(outcome, _out, _err)


@app.command()
def predict(
    adapter: Annotated[Path, typer.Argument(help="Adapter directory (runs/…/best).")],
    files: Annotated[list[Path], typer.Argument(help="Recordings; folders are searched.")],
    json: Annotated[bool, typer.Option("--json", help="One JSON object a line, every probability.")] = False,
    backbone: Annotated[str | None, typer.Option(help="Where the backbone is, if not where it was.")] = None,
    device: DeviceOption = None,
) -> None:
    """Print label and probability of every recording."""
    from search.commands.predict import predict_files

    raise typer.Exit(predict_files(adapter, files, json, backbone, _out, _err, device=device))


@app.command()
def evaluate(
    adapter: Annotated[Path, typer.Argument(help="Adapter directory (runs/…/best).")],
    data: Annotated[str | None, typer.Option(help="Where the recordings are (default: as trained).")] = None,
    dataset: Annotated[str | None, typer.Option(help="What they are (`petl-search datasets`).")] = None,
    split: Annotated[str, typer.Option(help="train, val, test or all.")] = "test",
    json: Annotated[bool, typer.Option("--json", help="One JSON object instead of a table.")] = False,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="What to judge: data.target=…, data.subset=…")
    ] = None,
    backbone: Annotated[str | None, typer.Option(help="Where the backbone is, if not where it was.")] = None,
    device: DeviceOption = None,
) -> None:
    """Measure an adapter on labelled recordings."""
    from search.commands.evaluate import evaluate_adapter

    evaluate_adapter(adapter, data, dataset, split, json, set_ or [], backbone, _out, _err, device=device)


@app.command()
def train(
    trial: Annotated[Path, typer.Argument(help="Trial file (runs/…/best.yaml).")],
    output: Annotated[
        Path | None, typer.Option(help="Adapter directory to write (default: TRIAL-again beside the file).")
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Any key of the trial, e.g. data=…")
    ] = None,
) -> None:
    """Train one resolved configuration again, without a search."""
    from search.commands.train import train_again

    raise typer.Exit(train_again(trial, output, set_ or [], _out, _err))


@app.command()
def report(directory: Annotated[Path, typer.Argument(help="Run directory of a search.")]) -> None:
    """Write report.html, trials.parquet and leaderboard.csv again from the journal."""
    from search.commands.report import rewrite_report

    rewrite_report(directory, _out)


@app.command()
def sync(
    directory: Annotated[Path, typer.Argument(help="Run directory of a search.")],
    mlflow: Annotated[
        str | None,
        typer.Option(help="Another MLflow, or the same with its password (default: the search's).", show_default=False),
    ] = None,
) -> None:
    """Deliver to MLflow what it lacks of a search that has ended, and end its runs.

    Exit status 0 when MLflow has everything, 1 when it does not answer, 2 when the request is wrong.
    """
    from search.commands.sync import sync as deliver

    raise typer.Exit(deliver(directory, mlflow, _out, _err))


@app.command()
def methods(
    backbone: Annotated[str, typer.Option(help="Whose trainable parameters to count.")] = "embedded",
    classes: Annotated[int, typer.Option(min=2, help="Size of the head.")] = 10,
) -> None:
    """List the methods with their options, defaults and trainable parameters."""
    from search.commands.methods import list_methods

    list_methods(backbone, classes, _out)


@_datasets.callback(invoke_without_command=True)
def datasets(context: typer.Context) -> None:
    """List what can be searched on, show one data set, or check a copy of it."""
    if context.invoked_subcommand is None:
        from search.commands.datasets import list_datasets

        list_datasets(_out)


@_datasets.command("show", hidden=True)
def show(name: Annotated[str, typer.Argument(help="A data set.")]) -> None:
    """Show everything that is known of a data set."""
    from search.commands.datasets import show_dataset

    show_dataset(name, _out)


@_datasets.command("check")
def check(
    name: Annotated[str, typer.Argument(help="Which data set it is a copy of.")],
    path: Annotated[Path, typer.Argument(help="Where the copy is.")],
    target: Annotated[str | None, typer.Option(help="What is to be learned (default: its first target).")] = None,
    subset: Annotated[str | None, typer.Option(help="Which part of it (default: its first subset).")] = None,
    protocol: Annotated[str | None, typer.Option(help="How it is split (default: standard).")] = None,
    lexicon: Annotated[str | None, typer.Option(help="Words to phones, where phones come from text.")] = None,
    examples: Annotated[int, typer.Option(min=1, help="How many of every kind of finding to list.")] = 5,
    quick: Annotated[bool, typer.Option("--quick", help="Lists, splits and labels only: decode nothing.")] = False,
    json: Annotated[bool, typer.Option("--json", help="The report as one JSON object.")] = False,
) -> None:
    """Find everything that is wrong with a copy: lists, rows, splits, labels, texts and every recording.

    Exit status 0 when a search can train on it as it is, 1 when not, 2 when the request is wrong.
    """
    from search.commands.data_check import check_copy

    options = {"target": target, "subset": subset, "protocol": protocol, "lexicon": lexicon}
    raise typer.Exit(check_copy(name, path, options, examples, not quick, json, _out))


@app.command()
def recipes(
    name: Annotated[str | None, typer.Argument(help="petl_ast, sure or aat (default: all).")] = None,
    dataset: Annotated[str | None, typer.Option(help="Show the settings on this data set.")] = None,
    method: Annotated[str | None, typer.Option(help="Show the settings of this method.")] = None,
) -> None:
    """List the published recipes: which data sets and methods they cover, and their settings with sources."""
    from search.commands.recipes import list_recipes

    list_recipes(name, dataset, method, _out)


@app.command()
def doctor(
    mlflow: Annotated[str | None, typer.Option(help="MLflow tracking URI to check.")] = None,
) -> None:
    """Check versions, devices, writable places and MLflow."""
    from search.commands.doctor import examine

    raise typer.Exit(examine(mlflow, _out))


app.command("search")(search)
_door.command()(search)


def launch() -> NoReturn:
    """`python launch.py`: the search command alone."""
    _guarded(_door)


def main() -> NoReturn:
    """`petl-search`: every command."""
    _guarded(app)


def _guarded(typer_app: typer.Typer) -> NoReturn:
    """Run a Typer application; requests that are wrong end with one message and status 2."""
    environment.quiet_libraries()
    try:
        typer_app()
    except UserError as error:
        _err.print(f"[bold red]error:[/] {_escaped(str(error))}", soft_wrap=True)
        sys.exit(2)
    except KeyboardInterrupt:
        _err.print("interrupted")
        sys.exit(130)
    sys.exit(0)


def _escaped(text: str) -> str:
    from rich.markup import escape

    return escape(text)
