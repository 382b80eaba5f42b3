"""What a configuration that a stranger saved may name."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

import eval as evaluation
import predict
import train
from src.config.checks import plain
from src.config.composition import compose_config
from src.config.saved import trusted_config
from src.config.trusted import TRUST_VARIABLE, check_trusted, is_trusted
from src.runs.checkpoint_io import AtomicCheckpointIO
from src.runs.folder import RunFolder
from src.utils.errors import ConfigError
from tests.fakes import tiny_overrides

ROOT = Path(__file__).resolve().parents[2]
EXPERIMENTS = sorted(path.stem for path in (ROOT / "configs" / "experiment").glob("*.yaml"))


@pytest.fixture(autouse=True)
def nothing_else_is_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(TRUST_VARIABLE)


@pytest.mark.parametrize("choice", [*(f"experiment={name}" for name in EXPERIMENTS), "logger=many"])
def test_every_configuration_of_this_project_is_trusted(choice: str) -> None:
    trusted_config(plain(compose_config([choice, "run_dir=x"]), resolve=False), [])


@pytest.mark.parametrize(
    "target",
    [
        *("torch.nn.Linear", "torch.nn.modules.conv.Conv3d", "torch.optim.RMSprop", "torch.optim.lr_scheduler.StepLR"),
        *("src.invertible.Downsampling", "src.models.unet.UNet", "src.tasks.reconstruction.Reconstruction"),
        *("pytorch_lightning.Trainer", "pytorch_lightning.callbacks.RichProgressBar"),
        *("pytorch_lightning.strategies.DDPStrategy", "pytorch_lightning.loggers.CSVLogger"),
        *("torchmetrics.image.PeakSignalNoiseRatio", "monai.losses.DiceLoss", "monai.transforms.RandFlip"),
    ],
)
def test_classes_that_only_compute_are_trusted(target: str) -> None:
    assert is_trusted(target)


HOSTILE = [
    # Of anything that is installed.
    *("os.system", "subprocess.Popen", "builtins.eval", "sympy.sympify", "numpy.load", "pickle.loads"),
    *(
        "hydra.utils.get_method",
        "hydra.utils.instantiate",
        "hydra.utils.call",
        "functools.partial",
        "tests.fakes.ToNaN",
    ),
    # Functions of the packages that are trusted.
    *("torch.load", "torch.hub.load", "torch.save", "torch.nn.functional.relu", "torch.nn.init.zeros_"),
    *("torch.utils.cpp_extension.load_inline", "torch.optim.swa_utils.get_ema_avg_fn"),
    *("src.utils.files.write_text", "src.utils.files.atomic_write", "src.sweeps.child.main", "src.runs.build.build"),
    *("src.datamodules.downloads.download", "src.datamodules.cifar10.load_python2_pickle"),
    # Classes of theirs that write, load or import.
    *("pytorch_lightning.cli.LightningCLI", "pytorch_lightning.cli.instantiate_class", "monai.bundle.ConfigParser"),
    *("src.callbacks.prediction_writer.PredictionWriter", "src.datamodules.array_pickle.load_python2_pickle"),
    *("monai.transforms.SaveImage", "monai.transforms.LoadImage", "monai.transforms.TorchVision"),
    *("monai.losses.PerceptualLoss", "torchmetrics.multimodal.CLIPScore", "torch.package.PackageImporter"),
    *("torch.jit.load", "torch.nn.Module.load_state_dict", "pytorch_lightning.LightningModule.load_from_checkpoint"),
    # Other names for what lies elsewhere.
    *("pytorch_lightning.os.system", "pytorch_lightning.callbacks.model_checkpoint.os.system"),
    *("torch.nn.modules.module.torch.load", "torch.nn.parallel.distributed.pickle.loads", "torch.os.system"),
    *("src.runs.provenance.subprocess.run", "src.models.iunet.torch.load", "src.models.iunet.Any"),
    *("torch.nn.Module.__init__.__globals__", "torch.nn.Module.__class__", "torch.nn.Linear.forward"),
    *("torch.nn", "torch", "src.models.unet", "torch.nn.Linaer", "", ".", "torch..nn", "torch.nn.Linear ", "a b"),
]


@pytest.mark.parametrize("target", HOSTILE)
def test_everything_else_is_refused(target: str) -> None:
    assert not is_trusted(target)


@pytest.mark.parametrize(
    "node",
    [
        {"_target_": "os.system", "_args_": ["true"]},
        {"_target_": "torch.nn.Linear", "in_features": {"_target_": "os.system"}},
        {"_target_": "torch.nn.Linear", "_args_": [[{"_target_": "os.system"}]]},
        {"_target_": "os.system", "_partial_": True},
        {"_target_": "torch.nn.Linear", "_recursive_": False, "a": {"b": [{"_target_": "os.system"}]}},
        {"_target_": "hydra.utils.get_method", "path": "os.system"},
        # Nodes that only interpolation makes.
        {"_target_": "${model.word}", "word": "os.system"},
        {"_target_": "${oc.env:HOSTILE}"},
        {"part": "${oc.create:{_target_:os.system}}"},
        {"part": "${oc.decode:'{_target_: os.system}'}"},
        {"part": "${oc.select:nothing,{_target_:os.system}}"},
        # Values that are others a second time.
        {"part": "\\${model.evil}", "evil": {"_target_": "os.system"}},
        {"part": "\\\\\\${model.evil}", "evil": {"_target_": "os.system"}},
        {"part": "${model.dollar}{model.evil}", "dollar": "$", "evil": "os.system"},
        {"part": "\\${now:%S}"},
    ],
)
def test_no_way_of_writing_a_configuration_leads_past_the_list(
    node: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOSTILE", "os.system")
    with pytest.raises(ConfigError, match=r"of a saved configuration|expected a saved configuration to name"):
        trusted_config({"model": node}, [])


def test_what_is_checked_is_what_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = {"A": {"_target_": "torch.nn.Linear"}, "B": {"_target_": "os.system"}}
    monkeypatch.setenv("NODE", "A")
    config = trusted_config({**nodes, "B": {}, "model": "${${oc.env:NODE}}", "x": "${oc.env:NODE}-${B}"}, [])
    monkeypatch.setenv("NODE", "B")
    assert config.model == nodes["A"] and config.x == "A-{}"
    first = trusted_config({"time": "${now:%f}"}, []).time
    assert isinstance(first, str) and "$" not in first


def test_references_stay_references() -> None:
    saved = {"a": "${b.${c}}", "b": {"d": 1}, "c": "d", "e": "${oc.select:b.x,1e-2}", "f": "x-${a}-${c}"}
    assert plain(trusted_config(saved, []), resolve=False) == saved
    assert trusted_config(saved, ["b.d=2"]).a == 2


def test_what_is_trusted_besides(monkeypatch: pytest.MonkeyPatch) -> None:
    config = OmegaConf.create({"model": {"_target_": "tests.fakes.ToNaN"}})
    with pytest.raises(ConfigError, match=r"got model\._target_=tests\.fakes\.ToNaN; .* trust=\[tests\.fakes\.ToNaN\]"):
        check_trusted(config)
    for trusted in ("tests", "tests.fakes", "tests.fakes.ToNaN"):
        check_trusted(config, [trusted])
    for trusted in ("test", "tests.fakes.ToN", "tests.other"):
        assert not is_trusted("tests.fakes.ToNaN", [trusted])
    assert not is_trusted("tests.fakes.signal.raise_signal", ["tests"])
    monkeypatch.setenv(TRUST_VARIABLE, "mylab,tests.fakes")
    check_trusted(config)


class Evil:
    """Stands for a class of another package; building it leaves a file."""

    def __init__(self, path: str) -> None:
        Path(path).touch()


def hostile_checkpoint(folder: Path) -> Path:
    """A checkpoint of a run whose configuration has been changed."""
    config = plain(compose_config(tiny_overrides(folder, "datamodule._target_=tests.fakes.TinyVolumes")), resolve=False)
    config["datamodule"]["_target_"] = "src.datamodules.foam_ct.FoamCTDataModule"
    config["callbacks"]["evil"] = {"_target_": f"{__name__}.Evil", "path": str(folder / "ran")}
    checkpoint = {"state_dict": {"w": torch.zeros(1)}, "config": config, "global_step": 1}
    for name in ("last", "best"):
        AtomicCheckpointIO().save_checkpoint(checkpoint, RunFolder(folder).checkpoint(name))
    return folder


@pytest.mark.parametrize("command", ["eval", "predict", "resume"])
def test_every_command_refuses_a_hostile_checkpoint(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    folder = hostile_checkpoint(tmp_path / "run")
    commands = {
        "eval": (evaluation.main, [f"ckpt={folder}"]),
        "predict": (predict.main, [f"ckpt={folder}", f"output={tmp_path / 'out'}"]),
        "resume": (train.main, [f"resume={folder}"]),
    }
    main, arguments = commands[command]
    monkeypatch.setattr(sys, "argv", ["x", *arguments])
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 2
    assert f"got callbacks.evil._target_={__name__}.Evil; add trust=[" in capsys.readouterr().err
    assert not (folder / "ran").exists()


def test_trust_on_the_command_line_and_typed_targets(tmp_path: Path) -> None:
    folder = hostile_checkpoint(tmp_path / "run")
    config, _ = evaluation.load([f"ckpt={folder}", f"trust={__name__}"])
    assert config.callbacks.evil._target_ == f"{__name__}.Evil" and "trust" not in config
    evaluation.load([f"ckpt={folder}", f"trust=[mylab,{__name__}.Evil]"])
    # Whoever types a name means it, in each way that a command line can say it.
    evaluation.load([f"ckpt={folder}", "callbacks.evil._target_=tests.fakes.NoisyGradients"])
    evaluation.load([f"ckpt={folder}", f"trust={__name__}", "+callbacks.more={_target_:tests.fakes.NoisyGradients}"])
    with pytest.raises(ConfigError, match="evil"):
        evaluation.load([f"ckpt={folder}", "+callbacks.more={_target_:tests.fakes.NoisyGradients}"])
