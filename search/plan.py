"""What a search would do, worked out without starting anything (torch-free, Ray-free)."""

from __future__ import annotations

from dataclasses import dataclass, replace

from rich import box
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from petl.counts import BackboneShape
from petl.families import family_of
from petl.frontend import FrontEnd
from petl.hub import check_weights, read_config, read_front_end
from petl.outputs import Classes, Output
from search.records import Objective
from search.resources import GroupPlan
from search.sizes import MethodSize, fitted, method_sizes, outside_bounds, trainable_params
from search.space import Choice, Params, Space, duration_text
from trainables.config import EMBEDDED, DataOptions, TrialConfig


@dataclass(frozen=True)
class DataSummary:
    """What a data set will give: classes, and clips per split."""

    name: str
    path: str
    protocol: str
    output: Output
    clips: dict[str, int]
    missing: int = 0  # files that are not there and skipped on request
    left_out: tuple[str, ...] = ()  # what the reader of the data set left out, a sentence each
    repeats: tuple[str, ...] = ()  # folds and draws that each trial trains on, where there are several


@dataclass(frozen=True)
class Enqueued:
    """A configuration that is tried first."""

    name: str
    params: Params  # as written
    trainable: int
    refused: str  # why a bound keeps it from being trained; empty when none does


@dataclass(frozen=True)
class Plan:
    """Everything a search would do that is known beforehand."""

    space: Space
    backbone: str
    shape: BackboneShape
    data: DataSummary
    groups: GroupPlan
    sizes: tuple[MethodSize, ...]
    enqueued: tuple[Enqueued, ...]

    @property
    def epochs(self) -> int:
        return self.space.max_epochs()

    @property
    def rungs(self) -> tuple[int, ...]:
        """Epochs at which trials are compared."""
        return self.space.scheduler.rungs(self.epochs)


def make_plan(space: Space, groups: GroupPlan) -> Plan:
    """Look at the backbone's configuration and the data set's lists, and count.

    Raises:
        UserError: for whatever would keep the search from starting: backbone or data not there or not usable,
            options that do not fit the backbone, bounds that leave nothing.
    """
    config = space.trial_config(space.complete({}))
    shape = backbone_shape(config)
    data = summarise(config.data)
    sizes = method_sizes(space, shape, data.output)
    enqueued = []
    for partial in space.enqueue:
        params = space.complete(partial)
        size = trainable_params(space, params, shape, data.output)
        refused = outside_bounds(space.objectives, size)
        enqueued.append(Enqueued(space.short_name(params), partial, size, refused))
    return Plan(space, config.backbone, shape, data, groups, sizes, tuple(enqueued))


def backbone_shape(config: TrialConfig) -> BackboneShape:
    """Sizes of the backbone as its checkpoint has them; `search.sizes.fitted` tells what a trial makes of it.

    Raises:
        UserError: when there is no such backbone, it is of no known family, its preprocessor_config.json is another
            family's, or it does not take the options about its input.
    """
    shape = BackboneShape.from_config(read_config(config.backbone, config.revision))
    check_weights(config.backbone, config.revision, family_of(shape.family).model)
    front_end = FrontEnd.from_preprocessor(read_front_end(config.backbone, config.revision))
    front_end.check(replace(shape, max_frames=front_end.frames))  # its kind and mel bins: the length follows the data
    fitted(shape, config)
    return shape


def summarise(options: DataOptions) -> DataSummary:
    """Classes and split sizes; the embedded task is described without being made."""
    if options.dataset == EMBEDDED:
        from trainables.embedded.patterns import PATTERNS
        from trainables.embedded.task import CLIPS_PER_CLASS

        clips = {split: count * len(PATTERNS) for split, count in CLIPS_PER_CLASS.items()}
        return DataSummary(EMBEDDED, "made on first use", "", Classes(tuple(sorted(PATTERNS))), clips)
    from trainables.data import SPLITS
    from trainables.data.planning import plans

    every = plans(options)
    found = every[0]
    return DataSummary(
        name=found.name,
        path=str(found.root),
        protocol=found.splits.protocol,
        output=found.output,
        clips={split: found.size(split) for split in SPLITS},
        missing=len(found.bad_files),
        left_out=found.left_out,
        repeats=tuple(one.title for one in every if one.title),
    )


def render(plan: Plan) -> RenderableType:
    """The plan for a terminal."""
    parts: list[RenderableType] = [_headline(plan.space), _facts(plan), Text(), _parameters(plan.space)]
    parts += [Text(), _sizes(plan)]
    if plan.enqueued:
        parts += [Text(), _enqueued(plan)]
    parts += [Text(f"note: {note}", style="yellow") for note in (*plan.data.left_out, *plan.space.notes)]
    return Group(*parts)


def _headline(space: Space) -> Text:
    text = Text(space.name, style="bold")
    if space.description:
        text.append(f"  {space.description}", style="not bold")
    return text


def _facts(plan: Plan) -> Table:
    space, shape = plan.space, plan.shape
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    known = ("backbone", "dataset", "data", "epochs")
    fixed = ", ".join(f"{k} {v}" for k, v in space.base.items() if k not in known and v is not None)
    rows = {
        "space": f"{space.source} (digest {space.digest()}), {_how_many(space.size())}",
        "backbone": f"{plan.backbone}: {shape.family}, {shape.layers} layers of width {shape.hidden}",
        "data": _data_text(plan.data),
        "fixed": fixed,
        "objective": "; ".join(_objective_text(o) for o in space.objectives),
        "sampler": _sampler_text(space),
        "trials": _trials_text(plan),
        "stopping": _stopping_text(plan),
        "running": str(plan.groups),
    }
    for name, value in rows.items():
        if value:
            table.add_row(name, escape(value))
    return table


def _parameters(space: Space) -> Table:
    table = _table("sampled", "values", "default", "when")
    for parameter in space.params:
        when = " and ".join(str(condition) for condition in parameter.when)
        default = str(Choice((parameter.default,)))
        table.add_row(*map(escape, (parameter.key, str(parameter.domain), default, when)))
    return table


def _sizes(plan: Plan) -> Table:
    table = _table(
        f"trained, with a head for {plan.data.output.size} {plan.data.output.noun}",
        "fewest",
        "default",
        "most",
        right=3,
    )
    for size in plan.sizes:
        numbers = (f"{n:,}" for n in (size.least, size.default, size.most))
        table.add_row(escape(size.method), *numbers)
    return table


def _enqueued(plan: Plan) -> Table:
    table = _table("tried first", "settings", "trainable")
    table.columns[2].justify = "right"
    for entry in plan.enqueued:
        settings = ", ".join(f"{k} {Choice((v,))}" for k, v in entry.params.items() if k != "method")
        refused = " (outside the bound: not trained)" if entry.refused else ""
        table.add_row(escape(entry.name), escape(settings), f"{entry.trainable:,}{refused}")
    return table


def _table(first: str, *others: str, right: int = 0) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1), header_style="bold", show_edge=False)
    table.add_column(first, no_wrap=True)
    for index, name in enumerate(others):
        table.add_column(name, justify="right" if index >= len(others) - right else "left", overflow="fold")
    return table


def _how_many(size: int | None) -> str:
    return "uncountably many configurations" if size is None else f"{size:,} configurations"


def _data_text(data: DataSummary) -> str:
    names = {"train": "training", "val": "validation", "test": "test"}
    clips = ", ".join(f"{count:,} {names.get(split, split)}" for split, count in data.clips.items())
    where = f" ({data.path})" if data.path else ""
    protocol = f"; {data.protocol}" if data.protocol else ""
    missing = f"; {data.missing} missing files left out" if data.missing else ""
    return f"{data.name}{where}: {data.output.size} {data.output.noun}; clips: {clips}{protocol}{missing}"


def _objective_text(objective: Objective) -> str:
    bounds = [
        f"{word} {bound:,.0f}"
        for word, bound in (("at most", objective.bound_max), ("at least", objective.bound_min))
        if bound is not None
    ]
    goal = "as high as possible" if objective.mode == "max" else "as low as possible"
    return f"{objective.metric} {goal}" + (f" ({' and '.join(bounds)})" if bounds else "")


def _sampler_text(space: Space) -> str:
    start = f", learning from trial {space.sampler.startup_trials + 1} on" if space.sampler.name == "tpe" else ""
    enqueued = f"; {len(space.enqueue)} given configurations come first" if space.enqueue else ""
    return f"{space.sampler.name}, seed {space.sampler.seed}{start}{enqueued}"


def _trials_text(plan: Plan) -> str:
    budget, repeats = plan.space.budget, plan.data.repeats
    each = f" on each of {len(repeats)} repeats ({', '.join(repeats)})" if repeats else ""
    limits = []
    if budget.trials is not None:
        most = f"at most {budget.trials * plan.epochs * len(repeats or ('',)):,} epochs in all"
        limits.append(f"{budget.trials} of up to {plan.epochs} epochs{each} ({most})")
    else:
        limits.append(f"up to {plan.epochs} epochs each{each}")
    if budget.time is not None:
        limits.append(f"no longer than {duration_text(budget.time)}")
    return "; ".join(limits)


def _stopping_text(plan: Plan) -> str:
    if not plan.rungs:
        return "no trial is stopped early"
    after = ", ".join(map(str, plan.rungs))
    scheduler = plan.space.scheduler
    return f"{scheduler.name}: compared after epoch {after}; the best 1/{scheduler.eta} goes on"
