"""Search spaces: YAML files that say what is fixed, what is sampled and what counts (torch-free).

    schema: petl.space/1
    name: demo                    # of run directories; default: the file's name
    description: one line
    base:                         # fixed; any dotted key; --set key=value and flags replace these
      epochs: 27
    objectives:                   # the first decides which trials are stopped; default: val/accuracy
      - {metric: val/accuracy, mode: max}
      - {metric: trainable_params, mode: min, max: 1_500_000}      # a bound: larger ones are not trained
    params:                       # sampled; exactly one kind each
      method: {choice: [soft_moa, lora], default: soft_moa}        # default: the first
      moa.reduction: {choice: [32, 64, 128], ordered: true, when: {method: soft_moa}}
      lora.rank: {int: [2, 64], log: true, default: 12, when: {method: [lora]}}       # or step: 2
      optim.lr: {float: [1e-4, 2e-2], log: true}                   # default: the (geometric) middle
      optim.weight_decay: {fixed: 0.1}                             # also: optim.weight_decay: 0.1
    enqueue:                      # tried first; what is left out takes its default
      - {method: lora, lora.rank: 8}
    sampler: {name: tpe, seed: 0, startup_trials: 10}              # or random
    scheduler: {name: asha, grace_epochs: 3, eta: 3}               # or none
    budget: {trials: 24, time: 30m}                                # one of them at least

`when` holds when every key in it is active and has one of its values; parents stand above children. A fixed
option that only some methods read (`lora.targets`) is left out of the trials of the others. Relative paths mean
relative to the directory the command is run in.
"""

from search.space.durations import duration_text, parse_duration
from search.space.errors import Mistake, SpaceError
from search.space.model import Budget, Params, SamplerOptions, SchedulerOptions, Space
from search.space.parameters import Choice, Condition, Domain, FloatRange, IntRange, Parameter
from search.space.parse import load_space, parse_assignments, parse_space
from search.space.writing import SCHEMA, dump

__all__ = [
    "SCHEMA",
    "Budget",
    "Choice",
    "Condition",
    "Domain",
    "FloatRange",
    "IntRange",
    "Mistake",
    "Parameter",
    "Params",
    "SamplerOptions",
    "SchedulerOptions",
    "Space",
    "SpaceError",
    "dump",
    "duration_text",
    "load_space",
    "parse_assignments",
    "parse_duration",
    "parse_space",
]
