"""What the command line imports before anything is trained must not import torch."""

from __future__ import annotations

import subprocess
import sys

import pytest

MODULES = [
    "petl",
    "petl.card",
    "petl.config",
    "petl.counts",
    "petl.families",
    "petl.hub",
    "petl.peft_format",
    "petl.plan",
    "petl.presets",
    "petl.shape",
]


@pytest.mark.parametrize("module", MODULES)
def test_no_torch(module: str) -> None:
    heavy = "{'torch', 'torchaudio', 'transformers', 'peft', 'safetensors'}"
    code = f"import sys, {module}; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_counting_needs_no_torch() -> None:
    code = (
        "import sys, petl\n"
        "print(petl.trainable_parameters(petl.MethodConfig(), petl.BackboneShape(), 50))\n"
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "39986"
