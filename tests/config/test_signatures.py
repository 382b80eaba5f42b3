"""Signatures read from source are those that importing gives."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path

import pytest
from hydra.utils import get_object
from omegaconf import OmegaConf

from src.config.composition import CONFIG_DIR
from src.config.signatures import Plain, signature_of
from src.config.targets import check_targets
from src.utils.errors import ConfigError

TARGETS = sorted(
    {
        line.partition("_target_:")[2].strip()
        for path in CONFIG_DIR.rglob("*.yaml")
        for line in path.read_text().splitlines()
        if "_target_:" in line
    }
)
VARIABLE = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


@pytest.mark.parametrize("path", TARGETS)
def test_every_target_of_the_configurations(path: str) -> None:
    found = signature_of(path)
    assert found is not None, "read without an import"
    parameters = inspect.signature(get_object(path)).parameters
    expected = [name for name, parameter in parameters.items() if parameter.kind not in VARIABLE]
    assert found.takes_any == any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())
    # One that takes keywords has the parameters of its base beside its own.
    assert set(expected) <= set(found.parameters) if found.takes_any else expected == list(found.parameters)


def test_hints_of_plain_types_and_literals() -> None:
    trainer = signature_of("pytorch_lightning.Trainer")
    assert trainer is not None
    epochs, precision = trainer.parameters["max_epochs"], trainer.parameters["precision"]
    assert epochs == Plain(frozenset({int, type(None)}))
    assert precision is not None and {"bf16-mixed", "64-true", 32} <= set(precision.literals)
    assert trainer.parameters["plugins"] is None
    assert precision.allows(32) and not precision.allows("fp8") and not precision.allows(True)
    assert Plain(frozenset({float})).allows(3) and not Plain(frozenset({int})).allows(True)
    task = signature_of("src.tasks.density.Density")
    assert task is not None and task.parameters["backprop"] is not None and not task.takes_any
    assert task.parameters["backprop"].literals == ("reversible", "stored", "checkpoint", "memcnn")


def test_what_cannot_be_read_is_imported() -> None:
    assert signature_of("builtins.dict") is None and signature_of("torch.nn.Linaer") is None
    with pytest.raises(ConfigError, match=r"expected an argument of src\.ct\.simulation\.ScanSpec, got a\.num_view"):
        check_targets(OmegaConf.create({"a": {"_target_": "src.ct.simulation.ScanSpec", "num_view": 3}}))


def test_all_checks_together_import_no_torch() -> None:
    probe = (
        "import sys; from src.config.composition import compose_config; from src.config.targets import check_targets\n"
        "from src.config.combinations import check_combinations\n"
        "for e in ('ct_postproc', 'iconvnet_table2', 'irevnet_lab'):\n"
        "    config = compose_config([f'experiment={e}', 'run_dir=x', 'logger=many', 'callbacks=guard'])\n"
        "    check_targets(config); check_combinations(config)\n"
        "sys.exit('torch' in sys.modules or 'pytorch_lightning' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", probe], cwd=Path(CONFIG_DIR).parent).returncode == 0
