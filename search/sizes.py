"""How many parameters the methods of a space train, from smallest to largest (torch-free).

The count is a sum of one part for each section of options (`adapter.*`, `lora.*`, ...), plus LayerNorms and head.
So the extremes are looked for section by section: in each, every combination of choices with the ends of ranges,
the other sections as they are best so far, until nothing changes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from petl import plan
from petl.config import MethodConfig, method_keys
from petl.counts import BackboneShape, trainable_parameters
from petl.errors import ConfigError, UserError
from petl.families import family_of
from petl.outputs import Output
from search.records import Objective
from search.space import Choice, IntRange, Parameter, Params, Space, tree
from search.space.aims import task_of
from trainables import augment, checks
from trainables.config import TrialConfig
from trainables.data.datasets.base import SEQUENCES

NO_SIZE = frozenset(
    {
        "adapter.activation",
        "adapter.dropout",
        "adapter.init",
        "adapter.order",
        "adapter.residual",
        "lora.alpha",
        "lora.dropout",
        "lora.scaling",
        "moa.legacy_double_add",
        "prefix.dropout",
        "prefix.table",
        "prompt.dropout",
        "prompt.insertion",
    }
)
"""Method options that change no count."""
_GRID = frozenset({"data.frames", "frequency_stride", "time_stride"})  # what the number of positions depends on
_INPUT = _GRID | {"positions", "aug.freq_mask", "aug.time_mask"}
"""Options that are not the method's, but that a backbone may not take."""
_OF_TASK = frozenset({"aug.mixup", "aug.roll", "train.balanced", "data.shots"})
"""Options that a task may not take."""
_OPTIONS = {info.key for info in method_keys()} | _INPUT
_SIZED = _OPTIONS - NO_SIZE - (_INPUT - _GRID)
_MOST_TOGETHER = 512  # combinations of a section that are counted; beyond, its options are followed one by one
_MOST_VALUES = 256  # of a whole-number range that are tried one by one against the backbone


class DoesNotFit(UserError):
    """A configuration that the backbone cannot be trained with."""


@dataclass(frozen=True)
class MethodSize:
    """Trainable parameters of one method in a space, head included when an output was given."""

    method: str
    least: int
    default: int
    most: int


def fitted(shape: BackboneShape, config: TrialConfig, frames: int | None = None) -> BackboneShape:
    """The backbone of a checkpoint (`shape`) as a trial loads it: for its length of input, with its patch strides.

    `frames` is the length that the data have (None: not known yet, the checkpoint's), which `data.frames` overrides.

    Raises:
        ConfigError: for options about the input that the backbone does not take.
    """
    family = family_of(shape.family)
    augment.check_masks(config.aug, spectrogram=not shape.samples)
    strides = {key: getattr(config, key) for key in ("frequency_stride", "time_stride")}
    if family.layout != "grid":
        for key, value in strides.items():
            if value is not None:
                raise ConfigError(
                    f"{key} moves the patches of a spectrogram, which backbone family '{family.name}' does not have; "
                    "leave it out",
                    key,
                )
        if config.positions == "zero":
            raise ConfigError(
                f"positions is 'zero', but backbone family '{family.name}' has no position embeddings of patches that "
                "could be set to zero; leave it out",
                "positions",
            )
    given = config.data.frames
    if shape.samples:
        return shape
    if family.layout != "grid" and given is not None and (given > shape.max_frames or given % 2):
        most = f"the backbone has positions for {shape.max_frames} frames; use at most that"
        why = f", but {most}" if given > shape.max_frames else "; it is halved by the backbone and must be even"
        raise ConfigError(f"data.frames is {given}{why}", "data.frames")
    moved = {key: value for key, value in strides.items() if value is not None}
    wanted = replace(shape, max_frames=given or frames or shape.max_frames, **moved)
    if family.layout == "grid" and wanted.max_frames < wanted.patch:
        raise ConfigError(
            f"data.frames is {wanted.max_frames}, less than the {wanted.patch} that one patch of the backbone spans",
            "data.frames",
        )
    return wanted


def check_inputs(space: Space, shape: BackboneShape) -> None:
    """Look for options about input and task that backbone or task do not take, before any data are read.

    Raises:
        DoesNotFit: names the line of the space.
    """
    items = ([(p.key, value)] for p in space.params if p.key in _INPUT for value in p.domain.ends())
    for params in tree.covering(space.params, items):
        with _named(space):
            fitted(shape, space.trial_config(params))
    items = ([(p.key, value)] for p in space.params if p.key in _OF_TASK for value in p.domain.ends())
    for params in ({}, *tree.covering(space.params, items)):
        with _named(space):
            config = space.trial_config(params or space.complete({}))
            transcript = task_of(config) in SEQUENCES
            checks.check_task(config, mixes=not transcript, classes=not transcript, sequence=transcript)


def trainable_params(
    space: Space, params: Params, shape: BackboneShape, output: Output | int | None, frames: int | None = None
) -> int:
    """Trainable parameters of one complete configuration, for a checkpoint and data as `fitted` takes them.

    Raises:
        DoesNotFit: when an option does not fit the backbone (a layer it does not have, a width of 0), or several do
            not fit each other; names the line of the space.
    """
    method, wanted = _fitting(space, params, shape, frames)
    return trainable_parameters(method, wanted, output)


def _fitting(
    space: Space, params: Params, shape: BackboneShape, frames: int | None
) -> tuple[MethodConfig, BackboneShape]:
    """The method of a configuration and its backbone; raises as `trainable_params`."""
    with _named(space):
        config = space.trial_config(params)
        wanted = fitted(shape, config, frames)
        plan.check(config.method, wanted)
    return config.method, wanted


@contextmanager
def _named(space: Space) -> Iterator[None]:
    """Say where in the space the key of a `ConfigError` is declared."""
    try:
        yield
    except ConfigError as error:
        key = error.key or ""
        message = str(error) if key in str(error) else f"{key}: {error}"
        raise DoesNotFit(f"{space.where(key)}: {message}") from None


def method_sizes(
    space: Space, shape: BackboneShape, output: Output | int | None, frames: int | None = None
) -> tuple[MethodSize, ...]:
    """Fewest, default and most trainable parameters of every method the space can propose.

    Because it tries the extremes, it also finds options that do not fit the backbone before anything is trained.

    Raises:
        UserError: as `trainable_params`; or when a bound on `trainable_params` leaves nothing to train.
    """
    known: dict[str, int] = {}  # by all options: what changes no count may still not fit
    counted: dict[str, int] = {}

    def count(params: Params) -> int:
        whole = space.key({k: v for k, v in params.items() if k in _OPTIONS})
        if whole not in known:
            method, wanted = _fitting(space, params, shape, frames)
            sized = space.key({k: v for k, v in params.items() if k in _SIZED})
            if sized not in counted:
                counted[sized] = trainable_parameters(method, wanted, output)
            known[whole] = counted[sized]
        return known[whole]

    for params in tree.covering(space.params, _single_values(space)):
        count(params)
    climb = _Climb(space, count)
    sizes = tuple(
        MethodSize(method, count(climb(start, -1)), count(start), count(climb(start, +1)))
        for method, start in _starts(space)
    )
    _check_bounds(space, sizes)
    return sizes


def outside_bounds(objectives: tuple[Objective, ...], size: int) -> str:
    """Why a configuration of `size` trainable parameters would not be trained; empty when it would."""
    for objective in objectives:
        if objective.metric != "trainable_params":
            continue
        if objective.bound_max is not None and size > objective.bound_max:
            return f"{size:,} trainable parameters, more than {objective.bound_max:,.0f}"
        if objective.bound_min is not None and size < objective.bound_min:
            return f"{size:,} trainable parameters, fewer than {objective.bound_min:,.0f}"
    return ""


def _starts(space: Space) -> Iterator[tuple[str, Params]]:
    """Each method with everything else at its default."""
    sampled = any(p.key == "method" for p in space.params)
    for method in space.methods():
        yield method, next(_with(space, {"method": method} if sampled else {}, {}))


class _Climb:
    """Finds the configuration of a method with the most (`sign` 1) or fewest (-1) trainable parameters.

    What was best in a section for one method is where the search of that section begins for the next.
    """

    def __init__(self, space: Space, count: Callable[[Params], int]) -> None:
        self._space, self._count = space, count
        self._groups = _groups(space)
        self._known: dict[tuple[str, int, frozenset[str]], Params] = {}

    def __call__(self, start: Params, sign: int) -> Params:
        best, before = start, None
        while before is None or self._count(best) != before:
            before = self._count(best)
            for section, group in self._groups.items():
                best = self._improved(section, group, best, sign)
        return best

    def _improved(self, section: str, group: list[Parameter], best: Params, sign: int) -> Params:
        def better(params: Params) -> int:
            return sign * self._count(params)

        spread = {p.key: _ends(p, self._space) for p in group}
        entries = (p.key for p in group if p.key in best and not spread.keys() & {c.key for c in p.when})
        place = (section, sign, frozenset(entries))
        if place in self._known:
            given = {key: value for key, value in self._known[place].items() if key in spread}
            best = max(best, *_with(self._space, {**best, **given}, {}), key=better)
        else:
            together = list(islice(_with(self._space, best, spread), _MOST_TOGETHER + 1))
            if len(together) <= _MOST_TOGETHER:
                best = max([best, *together], key=better)
        for key, values in spread.items():
            best = max([best, *_with(self._space, best, {key: values})], key=better)
        self._known[place] = best
        return best


def _with(space: Space, held: Params, spread: dict[str, tuple[Any, ...]]) -> Iterator[Params]:
    """Complete configurations over `spread`; everything else as in `held`, or at its default."""
    params = [replace(p, default=held[p.key]) if p.key in held else p for p in space.params]
    return tree.walk(params, spread)


def _groups(space: Space) -> dict[str, list[Parameter]]:
    """Parameters that change counts, or switch such on and off, by section."""
    groups: dict[str, list[Parameter]] = {}
    for parameter in space.params:
        if parameter.key != "method" and (parameter.key in _SIZED or space.is_parent(parameter.key)):
            groups.setdefault(parameter.key.partition(".")[0], []).append(parameter)
    return groups


def _ends(parameter: Parameter, space: Space) -> tuple[Any, ...]:
    """All choices (of numbers the ends), both ends of a range; and what conditions ask of it."""
    values = parameter.domain.ends()
    numbers = [v for v in values if isinstance(v, (int, float)) and not isinstance(v, bool)]
    if len(numbers) > 2:
        values = (*(v for v in values if v not in numbers), min(numbers), max(numbers))
    asked = [v for p in space.params for c in p.when if c.key == parameter.key for v in c.values]
    return tuple({(type(v), v): v for v in (*values, *asked)}.values())


def _single_values(space: Space) -> Iterator[tuple[tree.Item, ...]]:
    """Values that may not fit the backbone: all there are, beside each choice of their section."""
    for parameter in space.params:
        domain = parameter.domain
        if parameter.key not in _OPTIONS:
            continue
        values: tuple[Any, ...] = domain.ends()
        if isinstance(domain, IntRange) and (domain.size() or 0) <= _MOST_VALUES:
            values = tuple(range(domain.low, domain.high + 1, domain.step))
        section = parameter.key.partition(".")[0]
        for value in values:
            yield ((parameter.key, value),)
        for other in space.params:
            if other.key != parameter.key and other.key.startswith(f"{section}.") and isinstance(other.domain, Choice):
                for value in values:
                    yield from (((parameter.key, value), (other.key, choice)) for choice in other.domain.ends())


def _check_bounds(space: Space, sizes: tuple[MethodSize, ...]) -> None:
    least, most = min(s.least for s in sizes), max(s.most for s in sizes)
    for size, extreme in ((least, "smallest"), (most, "largest")):
        for objective in space.objectives:
            too_large = extreme == "smallest" and objective.bound_max is not None and size > objective.bound_max
            too_small = extreme == "largest" and objective.bound_min is not None and size < objective.bound_min
            if too_large or too_small:
                raise UserError(
                    f"{space.source or 'the space'}: the bound on {objective.metric} leaves nothing to train: even "
                    f"the {extreme} configuration has {outside_bounds(space.objectives, size)}; move the bound"
                )
