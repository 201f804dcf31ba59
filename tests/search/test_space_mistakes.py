"""Every mistake in a space file gives one message with file, line, key, what was found and what is allowed."""

from __future__ import annotations

from pathlib import Path

import pytest

from petl.errors import UserError
from search.space import SpaceError, load_space, parse_space

GOOD = """\
schema: petl.space/1
name: demo
base:
  epochs: 27
objectives:
  - {metric: val/accuracy, mode: max}
params:
  method: {choice: [soft_moa, lora, linear], default: soft_moa}
  optim.lr: {float: [1e-4, 2e-2], log: true, default: 5e-3}
  moa.experts: {int: [2, 15], default: 7, when: {method: soft_moa}}
  moa.reduction: {choice: [32, 64, 128], ordered: true, when: {method: soft_moa}}
  lora.rank: {int: [2, 64], log: true, default: 12, when: {method: lora}}
enqueue:
  - {method: lora, lora.rank: 8}
sampler: {name: tpe, seed: 0}
scheduler: {name: asha, grace_epochs: 3, eta: 3}
budget: {trials: 24}
"""

CASES = [
    # structure
    ("schema: petl.space/1", "schema: petl.space/2", "line 1, schema: found 'petl.space/2'; this version reads petl"),
    ("schema: petl.space/1\n", "", "'schema' is missing; begin the file with schema: petl.space/1"),
    ("name: demo", "name: de/mo", "line 2, name: found 'de/mo'; letters, digits"),
    ("name: demo", "nam: demo", "line 2, nam: unknown key (did you mean 'name'?); allowed: schema, name"),
    ("budget: {trials: 24}", "buget: {trials: 24}", "line 17, buget: unknown key (did you mean 'budget'?)"),
    ("base:\n  epochs: 27", "base: 27", "line 3, base: a mapping is expected, such as backbone: embedded; found 27"),
    ("  epochs: 27", "  epochs: 27\n  epochs: 9", "line 5, base.epochs: this key is already there in line 4"),
    # base
    ("epochs: 27", "epoch: 27", "line 4, base.epoch: unknown key (did you mean 'epochs'?)"),
    ("epochs: 27", "epochs: many", "line 4, base.epochs: Input should be a valid integer, found 'many'"),
    ("epochs: 27", "epochs: 0", "line 4, base.epochs: Input should be greater than or equal to 1, found 0"),
    ("epochs: 27", "optim.weight_decay: '0.1'", "base.optim.weight_decay: Input should be a valid number, found '0.1'"),
    ("epochs: 27", "optim.lrr: 1", "unknown key (did you mean 'optim.lr'?); optim has: optim.lr, optim.head_lr"),
    ("epochs: 27", "optim: {weight_decay: 1}", "written with dots: optim.weight_decay: ... instead of optim:"),
    ("epochs: 27", "optim.lr: 1e-3", "line 4, base.optim.lr: 'optim.lr' is sampled in params (line 9)"),
    ("epochs: 27", "pooling: men", "base.pooling: Input should be 'mean', 'cls', 'cls+dist', 'patches', 'prompts',"),
    ("epochs: 27", "pooling: men", "'masked_mean' or 'stats', found 'men'"),
    ("epochs: 27", "pooling: men", "(did you mean 'mean'?)"),
    ("epochs: 27", "adapter.width: 8", "it has no meaning for the methods of this space (soft_moa, lora, linear)"),
    (
        "epochs: 27",
        "moa.kernel: 3",
        "base.moa.kernel: it has no meaning with moa.expert 'bottleneck'; leave it",
    ),
    ("epochs: 27", "partial.last: top", "partial.last: Input should be a valid integer or 'half', found 'top'"),
    ("epochs: 27", "dataset: esc50", "line 4, base.dataset: dataset 'esc50' needs data: PATH (--data PATH)"),
    ("epochs: 27", "dataset: esc5", "found 'esc5'"),
    # params
    (
        "  moa.experts:",
        "  moa.expert_count:",
        "line 10, params.moa.expert_count: unknown key (did you mean 'moa.expert",
    ),
    ("[soft_moa, lora, linear]", "[sotf_moa, lora]", "line 8, params.method.choice[1]: method 'sotf_moa' is not known"),
    ("[soft_moa, lora, linear]", "[sotf_moa, lora]", "(did you mean 'soft_moa'?)"),
    ("[soft_moa, lora, linear]", "[soft_moa, 3]", "line 8, params.method.choice[2]: the name of a method is expected"),
    ("[soft_moa, lora, linear]", "[soft_moa, lora, lora]", "params.method.choice[3]: 'lora' is there twice"),
    ("[soft_moa, lora, linear]", "soft_moa", "line 8, params.method.choice: a list of values is expected"),
    ("[soft_moa, lora, linear]", "[]", "line 8, params.method.choice: a list of values is expected"),
    ("{int: [2, 15]", "{int: [15, 2]", "params.moa.experts.int: the range [15, 2] is inverted; write [2, 15]"),
    ("{int: [2, 15]", "{int: [2]", "line 10, params.moa.experts.int: a range is two numbers, [low, high]; found [2]"),
    ("{int: [2, 15]", "{int: [2, many]", "params.moa.experts.int: whole numbers are expected, found 'many'"),
    ("{int: [2, 15]", "{int: [2.5, 15]", "params.moa.experts.int: whole numbers are expected, found 2.5"),
    ("{int: [2, 15]", "{int: [0, 15]", "params.moa.experts.int: Input should be greater than or equal to 1, found 0"),
    ("{int: [2, 15]", "{float: [2, 15]", "params.moa.experts.float: Input should be a valid integer"),
    ("{int: [2, 15]", "{inr: [2, 15]", "params.moa.experts: one kind is expected"),
    ("{int: [2, 15]", "{inr: [2, 15]", "(did you mean 'int'?)"),
    ("{int: [2, 15]", "{int: [2, 15], choice: [2]", "one kind is expected, {choice: [a, b]}"),
    ("{int: [2, 15]", "{int: [2, 15], step: 2", "15 cannot be reached from 2 in steps of 2; write [2, 14]"),
    ("{int: [2, 15]", "{int: [2, 15], defalt: 3", "params.moa.experts.defalt: unknown key (did you mean 'default'?)"),
    ("{int: [2, 64], log: true", "{int: [2, 64], log: 1", "line 12, params.lora.rank.log: true or false is expected"),
    ("{int: [2, 64], log: true", "{int: [2, 64], log: true, step: 2", "a log scale takes no step"),
    ("{float: [1e-4, 2e-2]", "{float: [0, 2e-2]", "a log scale needs a lower end above 0, found 0"),
    ("{float: [1e-4, 2e-2]", "{float: [.nan, 2e-2]", "line 9, params.optim.lr.float: numbers are expected, found nan"),
    ("{float: [1e-4, 2e-2]", f"{{float: [1e-4, {10**200}]", "line 9, params.optim.lr.float: numbers are expected"),
    ("{float: [1e-4, 2e-2]", f"{{float: [1e-4, {10**400}]", "line 9, params.optim.lr.float: numbers are expected"),
    ("{float: [1e-4, 2e-2]", "{float: ['1e-4', 2e-2]", "numbers are expected, found '1e-4'"),
    ("default: 5e-3", "default: 5e-1", "line 9, params.optim.lr.default: the default 0.5 is outside 0.0001 to 0.02"),
    ("default: 7", "default: 7.5", "line 10, params.moa.experts.default: the default 7.5 is not a whole number"),
    ("default: soft_moa", "default: adapter", "params.method.default: the default 'adapter' is not one of soft_moa"),
    (
        "method: {choice",
        "dataset: {choice: [embedded]}\n  method: {choice",
        "it cannot be sampled, since results on diff",
    ),
    ("method: {choice", "data.fold: {int: [1, 5]}\n  method: {choice", "give it one value in base"),
    ("method: {choice", "backbone: {choice: [a, b]}\n  method: {choice", "one search adapts one backbone"),
    # conditions
    (
        "when: {method: lora}",
        "when: {metod: lora}",
        "line 12, params.lora.rank.when.metod: 'metod' is not declared above",
    ),
    ("when: {method: lora}", "when: {metod: lora}", "(did you mean 'method'?)"),
    ("when: {method: lora}", "when: {method: lara}", "method can never have this value: 'lara' is not one of soft_moa"),
    ("when: {method: lora}", "when: {method: []}", "an empty list: this parameter could never be active"),
    ("when: {method: lora}", "when: lora", "line 12, params.lora.rank.when: a mapping is expected, such as {method:"),
    ("when: {method: lora}", "when: {lora.rank: 2}", "a parameter cannot depend on itself"),
    ("when: {method: lora}", "when: {optim.lr: 0.005}", "optim.lr is a real number; only choices and whole numbers"),
    ("when: {method: lora}", "when: {epochs: 9}", "this parameter can never be active, since epochs is fixed to 27"),
    (
        "enqueue:",
        "  lora.alpha: {float: [1, 64], when: {method: lora, moa.experts: 3}}\nenqueue:",
        "line 13, params.lora.alpha.when: never active: nothing leads to method = lora and moa.experts = 3",
    ),
    ("default: 7, when: {method: soft_moa}", "default: 7, when: {lora.rank: 2}", "parents come first: move it up"),
    (", when: {method: lora}}", "}", "line 12, params.lora.rank: it has no meaning for method 'soft_moa'; add when"),
    (", when: {method: lora}}", "}", "add when: {method: lora}"),
    ("[soft_moa, lora, linear]", "[soft_moa]", "method can never have this value: 'lora' is not one of soft_moa"),
    # objectives
    ("metric: val/accuracy", "metric: val/acuracy", "line 6, objectives[1].metric: found 'val/acuracy' (did you mean"),
    (
        "metric: val/accuracy",
        "metric: test/accuracy",
        "the test split is read once, at the end, and never by the search",
    ),
    ("mode: max", "mode: min", "objectives[1].mode: val/accuracy is better when larger; write mode: max"),
    ("mode: max", "mode: maximum", "objectives[1].mode: found 'maximum'"),
    ("mode: max", "mode: max, max: 3", "only trainable_params can have one, not val/accuracy"),
    ("{metric: val/accuracy, mode: max}", "{metric: trainable_params}", "the first objective decides which trials"),
    (
        "  - {metric",
        "  - {metric: val/loss}\n  - {metric: val/loss}\n  - {metric",
        "objectives[2]: val/loss is there tw",
    ),
    (
        "mode: max}",
        "mode: max}\n  - {metric: trainable_params, min: 9, max: 3}",
        "line 7, objectives[2]: min 9 is above max 3",
    ),
    ("  - {metric: val/accuracy, mode: max}", "  []", "objectives: a list is expected"),
    # enqueue
    ("lora.rank: 8", "lora.rnk: 8", "line 14, enqueue[1].lora.rnk: 'lora.rnk' is not sampled by this space (did you m"),
    ("lora.rank: 8", "lora.rank: 80", "line 14, enqueue[1].lora.rank: 80 is outside 2 to 64"),
    ("lora.rank: 8", "moa.experts: 8", "enqueue[1].moa.experts: 'moa.experts' is not active here: it needs method ="),
    (
        "lora.rank: 8",
        "epochs: 8",
        "enqueue[1].epochs: 'epochs' is not sampled by this space; it is fixed to 27 in base",
    ),
    ("  - {method: lora, lora.rank: 8}", "  - lora", "line 14, enqueue[1]: a mapping is expected"),
    ("  - {method: lora, lora.rank: 8}", "  method: lora", "line 13, enqueue: a list is expected"),
    # sampler, scheduler, budget
    ("name: tpe", "name: tpa", "line 15, sampler.name: found 'tpa' (did you mean 'tpe'?); allowed: tpe, random"),
    ("seed: 0", "seed: -1", "line 15, sampler.seed: at least 0 is expected, found -1"),
    ("seed: 0", f"seed: {10**200}", "line 15, sampler.seed: at most 2147483647 is expected, found 1000"),
    ("{trials: 24}", f"{{time: {10**200}}}", "line 17, budget.time: found 1000"),
    ("seed: 0", "sed: 0", "line 15, sampler.sed: unknown key (did you mean 'seed'?)"),
    ("eta: 3", "eta: 1", "line 16, scheduler.eta: at least 2 is expected, found 1"),
    ("grace_epochs: 3", "grace_epochs: 2.5", "scheduler.grace_epochs: a whole number is expected, found 2.5"),
    ("name: asha", "name: hyperband", "scheduler.name: found 'hyperband'; allowed: asha, none"),
    ("{trials: 24}", "{trials: 0}", "line 17, budget.trials: at least 1 is expected, found 0"),
    ("{trials: 24}", "{time: 3 moons}", "line 17, budget.time: found '3 moons'; write 90s, 30m, 1h30m or 2d"),
    ("{trials: 24}", "{}", "line 17, budget: the search would never end; say budget: {trials: 24} (--trials)"),
    ("budget: {trials: 24}\n", "", "the search would never end"),
]


@pytest.mark.parametrize(("old", "new", "expected"), CASES)
def test_a_mistake_is_explained(old: str, new: str, expected: str) -> None:
    assert old in GOOD
    with pytest.raises(SpaceError) as caught:
        parse_space(GOOD.replace(old, new, 1), "demo.yaml")
    message = str(caught.value)
    assert message.startswith("demo.yaml"), message
    assert expected in message, message


def test_the_file_before_the_mistakes_is_fine() -> None:
    assert parse_space(GOOD).name == "demo"


def test_all_mistakes_are_reported_in_the_order_of_the_file() -> None:
    text = GOOD.replace("epochs: 27", "epoch: 27").replace("eta: 3", "eta: 1").replace("[2, 15]", "[15, 2]")
    with pytest.raises(SpaceError) as caught:
        parse_space(text, "demo.yaml")
    lines = str(caught.value).splitlines()
    assert lines[0] == "demo.yaml: 3 mistakes"
    assert [line.split(",")[0].split(". ")[1] for line in lines[1:]] == ["line 4", "line 10", "line 16"]


def test_a_clash_between_sampled_options_is_found_before_any_trial() -> None:
    text = GOOD.replace(
        "  lora.rank",
        "  layers.first: {int: [0, 5], default: 0}\n  layers.last: {int: [2, 5], default: 5}\n  lora.rank",
    ).replace("[soft_moa, lora, linear]", "[soft_moa, lora]")
    with pytest.raises(SpaceError, match=r"layers\.last \(2\) is below layers\.first \(5\)"):
        parse_space(text)


@pytest.mark.parametrize("text", ["", "# nothing but a comment\n", "---\n"])
def test_an_empty_file(text: str) -> None:
    with pytest.raises(SpaceError, match="the file is empty"):
        parse_space(text, "demo.yaml")


def test_a_file_that_is_no_mapping() -> None:
    with pytest.raises(SpaceError, match="a space is a mapping"):
        parse_space("- a\n- b\n", "demo.yaml")


def test_no_params_and_no_method() -> None:
    head = "schema: petl.space/1\nbudget: {trials: 1}\n"
    with pytest.raises(SpaceError, match="'params' says what is sampled"):
        parse_space(head)
    with pytest.raises(SpaceError, match="line 3, params: no method"):
        parse_space(head + "params:\n  optim.lr: {float: [1e-4, 1e-2]}\n")


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "moa.yaml").write_text(GOOD)
    with pytest.raises(UserError, match=r"moo\.yaml does not exist \(did you mean .*moa\.yaml\?\)"):
        load_space(tmp_path / "moo.yaml")
    with pytest.raises(UserError, match=r"is a directory; give one of its space files; there are: .*moa\.yaml"):
        load_space(tmp_path)
    (tmp_path / "latin.yaml").write_bytes("name: x\n# gr\u00fc\u00dfe".encode("latin-1"))
    with pytest.raises(SpaceError, match="line 2: the file is not UTF-8 text"):
        load_space(tmp_path / "latin.yaml")
    (tmp_path / "big.yaml").write_text("#" * 1_000_001)
    with pytest.raises(UserError, match="1,000,001 bytes"):
        load_space(tmp_path / "big.yaml")


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("epoch", 9, "--set epoch: unknown key (did you mean 'epochs'?)"),
        ("epochs", "nine", "epochs (--max-epochs): Input should be a valid integer, found 'nine'"),
        ("optim.lr", 1e-3, "--set optim.lr: 'optim.lr' is sampled in params (line 9)"),
        ("scheduler.eta", 1, "--set scheduler.eta: at least 2 is expected"),
        ("scheduler.etta", 3, "--set scheduler.etta: unknown key (did you mean 'eta'?)"),
        ("schedler.eta", 3, "--set schedler.eta: unknown key (did you mean 'scheduler.eta'?)"),
        ("budget.time", "soon", "budget.time (--time-budget): found 'soon'"),
    ],
)
def test_mistakes_on_the_command_line_name_what_was_typed(key: str, value: object, expected: str) -> None:
    with pytest.raises(SpaceError) as caught:
        parse_space(GOOD, "demo.yaml", {key: value})
    assert f"demo.yaml, {expected}" in str(caught.value)
