"""Values that are impossible together."""

from __future__ import annotations

import pytest

from src.config import combinations
from src.config.combinations import check_combinations
from src.config.composition import compose_config
from src.config.targets import check_targets
from src.utils.errors import ConfigError

DDP = ["trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=4"]
PAIRS = ["experiment=restoration"]


def check(*overrides: str) -> None:
    config = compose_config([*overrides, "run_dir=x"])
    check_targets(config)
    check_combinations(config)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["trainer.max_epochs=-1"], "expected trainer.max_epochs to be at least 0, got -1"),
        (["+trainer.max_steps=-2"], "expected trainer.max_steps to be at least -1, got -2"),
        (["+trainer.overfit_batches=1"], "limit_train_batches"),
        (["trainer.accelerator=gpuu"], "trainer.accelerator to be one of .*, got 'gpuu'; did you mean 'gpu'"),
        (["trainer.devices=0"], "expected trainer.devices to be at least 1, -1 or auto, got 0"),
        (["trainer=gpu"], "trainer.accelerator=gpu trainer.devices=1 on a machine with 0 such devices"),
        (["trainer=gpu", "trainer.devices=[3]"], r"trainer.devices=\[3\] on a machine with 0 such devices"),
        (["trainer.precision=16-mixed"], "expected trainer.precision=bf16-mixed or 32-true on a CPU, got 16-mixed"),
        (["trainer.precision=16"], "expected trainer.precision=bf16-mixed or 32-true on a CPU"),
        (["compile=reduce-overhead"], "expected compile=true or false without a CUDA device, got reduce-overhead"),
        (
            ["experiment=iconvnet_table2", "trainer.precision=bf16-true"],
            "expected trainer.precision=32-true or bf16-mixed for density estimation, got bf16-true",
        ),
        (["trainer.precision=64-mixed"], "expected trainer.precision to be one of .*, got '64-mixed'; did you mean"),
        (["backprop=reversable"], "expected task.backprop to be one of .*; did you mean 'reversible'"),
        (["experiment=iconvnet_table2", "backprop=chekpoint"], "expected task.backprop .*did you mean 'checkpoint'"),
        ([*DDP, "datamodule.num_test=3"], "expected datamodule.num_test to be at least 4, one sample per process"),
        ([*DDP, "trainer.num_nodes=20"], "expected datamodule.num_train to be at least 80"),
        (
            ["network.num_levels=7"],
            "expected at most 6 levels for a side of 32, .*model.body.channels.num_levels=7",
        ),
        (["network.num_levels=7", "model.body.padding_mode=constant"], "expected at most 6 levels"),
        (["model=unet", "network.num_levels=7"], "expected at most 6 levels .* got model.num_levels=7"),
        ([*PAIRS, "datamodule.spatial_dims=1"], "expected datamodule.spatial_dims=2 or 3, got 1"),
        ([*PAIRS, "datamodule.size=[32,32]"], r"expected datamodule.size as one number or 3, .*got \[32, 32\]"),
        (["callbacks=time_budget"], "expected task/scheduler=none with callbacks=time_budget, .*got .*warmup_cosine"),
        (["trainer=fsdp", "trainer.accelerator=cpu"], "expected trainer.accelerator=gpu with trainer.strategy=fsdp"),
    ],
)
def test_is_refused(overrides: list[str], message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(combinations, "_gpus", lambda accelerator: 0)
    with pytest.raises(ConfigError, match=message):
        check(*overrides)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["backprop=memcnn"], r"expected backprop to be one of reversible, stored, .*, got 'memcnn'"),
        (
            ["trainer.gradient_clip_val=1.0"],
            r"expected trainer\.gradient_clip_val=null or .*=value with .*, got .*=1\.0",
        ),
        (["experiment=flows/realnvp"], r"expected trainer\.gradient_clip_val=null .*got .*=100\.0"),
        (["trainer.gradient_clip_val=1.0", "+trainer.gradient_clip_algorithm=norm"], "expected trainer.gradient_clip"),
        *(
            ([f"callbacks={name}", "task/scheduler=none"], f"expected no callbacks.{name} with trainer.strategy=fsdp")
            for name in ("ema", "swa", "lr_finder")
        ),
    ],
)
def test_what_fails_with_sharded_parameters(
    overrides: list[str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(combinations, "_gpus", lambda accelerator: 2)
    with pytest.raises(ConfigError, match=message):
        check("trainer=fsdp", *overrides)


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        DDP,
        ["network.num_levels=6"],
        ["network.num_levels=5", "datamodule.scan.size=31", "model.body.padding_mode=constant"],
        ["trainer=gpu", "trainer.devices=2", "trainer.precision=16-mixed"],
        ["trainer=fsdp", "backprop=checkpoint"],
        ["trainer=fsdp", "backprop=reversible"],
        ["trainer=fsdp", "trainer.gradient_clip_val=1.0", "+trainer.gradient_clip_algorithm=value"],
        ["trainer=ddp", "trainer.num_nodes=2"],
        ["experiment=irevnet_lab", "datamodule.num_val=0"],
        [*PAIRS, "datamodule.spatial_dims=2", "datamodule.size=[32,64]"],
        ["callbacks=time_budget", "task/scheduler=none"],
        ["callbacks=time_budget", "task.scheduler=null"],
        ["experiment=flows/realnvp", "callbacks=time_budget"],
    ],
)
def test_is_let_through(overrides: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(combinations, "_gpus", lambda accelerator: 2)
    check(*overrides)
