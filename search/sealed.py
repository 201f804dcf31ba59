"""What goes through Ray Tune without Tune looking into it (torch-free, Ray-free).

Tune copies a trial's configuration deeply, takes it apart and spells all of it out in a tag; of every number that it
finds in a result it keeps extremes and running means, for each trial to the end of the search. Nobody here asks for any
of it: the journal keeps what was asked and what was reported (`benchmarks/sealed_results.py` says what it costs).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class Sealed:
    """Carries a mapping that nobody changes."""

    def __init__(self, inside: Mapping[str, Any]) -> None:
        self.inside = inside

    def __deepcopy__(self, memo: dict[int, Any]) -> Sealed:
        return self

    def __repr__(self) -> str:
        return "sealed"  # goes into the tag


def order(trial: str, **told: Any) -> dict[str, Any]:
    """What Tune hands to a trial's proxy."""
    return {"trial": trial, "told": Sealed(told)}


def told(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """What `order` was given."""
    return config["told"].inside


def reported(report: Mapping[str, Any]) -> dict[str, Any]:
    """What the proxy hands to Tune; of it only `done` means something to Tune."""
    return {"report": Sealed(report), "done": bool(report.get("done"))}


def report_of(result: Mapping[str, Any]) -> Mapping[str, Any]:
    """What `reported` was given; empty for a result that Tune made up itself."""
    return result["report"].inside if "report" in result else {}
