"""What goes through Ray Tune unseen: held against the version of Tune that is installed."""

from __future__ import annotations

import copy
import pickle

from ray.tune.experiment import Trial
from ray.tune.search.variant_generator import _resolve_nested_dict, format_vars
from ray.tune.utils import flatten_dict, merge_dicts

from search.proxy import TrialProxy
from search.sealed import order, report_of, reported, told

FLAT = {"method": "lora", "optim.lr": 0.003, "lora.targets": ["q", "v"]}
REPORT = {"epoch": 3, "seconds": 1.5, "val/accuracy": 0.5, "notes": ["slow"], "done": False}


def test_an_order_and_a_report_arrive_as_they_were_sent() -> None:
    sent = merge_dicts({}, copy.deepcopy(order("t0001", hub="h", flat=FLAT)))
    arrived = pickle.loads(pickle.dumps(sent))
    assert arrived["trial"] == "t0001" and told(arrived) == {"hub": "h", "flat": FLAT}
    assert report_of(pickle.loads(pickle.dumps(reported(REPORT)))) == REPORT
    assert report_of({"done": True}) == {}, "Tune's own, of a trial that ended without a word"


def test_tune_sees_nothing_to_walk_through_or_to_keep_statistics_of() -> None:
    sent = order("t0001", flat=FLAT)
    assert copy.deepcopy(sent)["told"] is sent["told"], "not copied"
    assert set(flatten_dict(sent)) == {"trial", "told"}
    assert "0.003" in format_vars(_resolve_nested_dict({"flat": FLAT})), "what would stand in the tag"
    assert "0.003" not in format_vars(_resolve_nested_dict(sent))
    trial = Trial("__fake", stub=True, config=sent)
    trial.update_last_result({**reported(REPORT), "training_iteration": 3})
    assert set(trial.metric_analysis) <= {"done", "training_iteration"}, "no number of ours"
    assert report_of(trial.last_result) == REPORT


def test_done_is_the_only_word_for_tune() -> None:
    assert reported({**REPORT, "done": True})["done"] is True
    assert reported({"failed": "why"})["done"] is False


def test_a_proxy_asks_for_the_head_and_for_no_processor() -> None:
    found = TrialProxy.default_resource_request({})
    assert found.bundles == [{"node:__internal_head__": 0.0001}]
