"""The linear heal target against least squares over all positions at once, by numpy, on the ridge as extra rows."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from torch import Tensor, nn

import tiny_speech
from shoal import tasks
from shoal.decoder.prepare import prepare
from shoal.decoder.states import decoder_arguments
from shoal.errors import MeasureError, ModelError, PlanError, UsageError
from shoal.healing.linear import LinearFits, apply_linear, fit_linear
from shoal.healing.normal_equations import ROWS, NormalEquations
from shoal.healing.settings import RIDGES
from shoal.models import families
from shoal.models.batch import Kind, PreparedBatch
from shoal.models.loading import LoadedModel
from shoal.pruning.in_memory import prune_in_place, pruned
from tiny_audio import BUILDS
from tiny_models import COMMON, VOCABULARY, tiny

LENGTHS = (9, 6, 7, 11)
DOWN = {"gpt2": "mlp.c_proj", "gpt_neox": "mlp.dense_4h_to_h", "opt": "fc2", "gpt_neo": "mlp.c_proj"}
"""Where the classes' own source code ends the MLP, if not with `mlp.down_proj`."""


def plan(*layers: int, depth: int = 6) -> Any:
    return tiny_speech.plan(*layers, depth=depth)


def text_model(name: str = "llama", model: transformers.PreTrainedModel | None = None) -> LoadedModel:
    """A tiny float64 text model as `shoal.load` gives it."""
    model = (model or tiny(name)).double().requires_grad_(False)
    return LoadedModel("tiny", Path(), model, None, None, families.find(model), "causal_lm")


def biased() -> LoadedModel:
    """A Llama whose MLP has biases that matter."""
    torch.manual_seed(3)
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**COMMON, num_hidden_layers=6, mlp_bias=True))
    for parameter in model.eval().requires_grad_(False).parameters():
        parameter.normal_(std=0.2)
    return text_model(model=model)


def batch_of(
    loaded: LoadedModel, lengths: Sequence[int] = LENGTHS, side: str = "left", first: int = 0
) -> PreparedBatch:
    """Clips of a prompt token, audio, and a response of three tokens; what stands in the padding is not zero."""
    table, longest = loaded.model.get_input_embeddings(), max(lengths)
    width = table.weight.shape[1]
    embeds = torch.ones(len(lengths), longest, width, dtype=table.weight.dtype)
    kinds = torch.zeros(len(lengths), longest, dtype=torch.uint8)
    for row, length in enumerate(lengths):
        ids = torch.randint(6, VOCABULARY, (length,), generator=torch.Generator().manual_seed(first + row))
        at = slice(longest - length, None) if side == "left" else slice(0, length)
        marks = [Kind.PROMPT, *[Kind.AUDIO] * (length - 4), *[Kind.TEXT] * 3]
        kinds[row, at] = torch.tensor(marks, dtype=torch.uint8)
        embeds[row, at] = table(ids).detach()
    names = [f"u{first + row}" for row in range(len(lengths))]
    return PreparedBatch(names, embeds, kinds, torch.full(kinds.shape, -1))


def speech_batches(loaded: LoadedModel, folder: Path, *, side: str = "left") -> list[PreparedBatch]:
    clips = list(tiny_speech.dataset(folder, 6).clips())
    parts = (clips[:4], clips[4:])
    return [
        prepare(loaded, part, tasks.get("asr"), response=True, padding_side=side)  # type: ignore[arg-type]
        for part in parts
    ]


def audio_model(name: str, folder: Path, depth: int = 4) -> LoadedModel:
    build = BUILDS[name]
    model, processor = build.build(depth).requires_grad_(False), build.processor()
    return LoadedModel(name, folder, model, processor.tokenizer, processor, families.find(model), "audio_llm")


@contextmanager
def seen(modules: dict[str, nn.Module], into: dict[str, Tensor]) -> Iterator[None]:
    """What modules take (`name.in`) and give (`name.out`)."""

    def before(name: str) -> Any:
        def hook(_: object, args: tuple, kwargs: dict) -> None:
            into[f"{name}.in"] = (args[0] if args else kwargs["hidden_states"]).clone()

        return hook

    def after(name: str) -> Any:
        def hook(_: object, __: object, output: Any) -> None:
            into[f"{name}.out"] = (output[0] if isinstance(output, tuple) else output).clone()

        return hook

    handles = [m.register_forward_pre_hook(before(n), with_kwargs=True) for n, m in modules.items()]
    handles += [m.register_forward_hook(after(n)) for n, m in modules.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def states(
    loaded: LoadedModel, batches: Sequence[PreparedBatch], modules: dict[str, nn.Module], scope: Any = "all"
) -> dict[str, np.ndarray]:
    """All positions in scope of all batches, (N, width) float64 each, clip by clip."""
    found: dict[str, list[np.ndarray]] = {}
    for batch in batches:
        into: dict[str, Tensor] = {}
        with seen(modules, into):
            loaded.decoder(**decoder_arguments(loaded.decoder, batch), use_cache=False)
        mask = batch.scope(scope)
        for name, tensor in into.items():
            rows = tensor.reshape(*mask.shape, -1)[mask].double().numpy()
            found.setdefault(name, []).append(rows)
    return {name: np.concatenate(rows) for name, rows in found.items()}


def around(loaded: LoadedModel, start: int, stop: int, down: str) -> dict[str, nn.Module]:
    """The modules whose states a cut is fitted with."""
    layers = loaded.layers
    return {"down": layers[start - 1].get_submodule(down), "start": layers[start], "stop": layers[stop - 1]}


def reference(
    loaded: LoadedModel,
    batches: Sequence[PreparedBatch],
    start: int,
    stop: int,
    *,
    fit: str,
    ridge: float,
    weighting: str,
    down: str = "mlp.down_proj",
    c: float = 1.0,
    scope: Any = "all",
) -> tuple[np.ndarray, np.ndarray | None, float, float]:
    """New weight (d, d_ff) and bias, error before and after: the formulas as they are written, in no clever form."""
    module = around(loaded, start, stop, down)["down"]
    taken = states(loaded, batches, around(loaded, start, stop, down), scope)
    weight = module.weight.double().numpy()
    weight = weight.T if isinstance(module, transformers.pytorch_utils.Conv1D) else weight
    bias = None if module.bias is None else module.bias.double().numpy()
    x_s, x_e, m = taken["start.in"], taken["stop.out"], c * taken["down.out"]
    y = x_s - m
    h = c * taken["down.in"]
    h = h if bias is None else np.hstack([h, np.full((len(h), 1), c)])
    whole = weight if bias is None else np.hstack([weight, bias[:, None]])
    w = np.ones(len(y)) if weighting == "none" else 1 / (x_e**2).sum(1)
    f, old = (m, np.eye(m.shape[1])) if fit == "map" else (h, whole)
    lam = ridge * (w[:, None] * f**2).sum(0).mean()
    rows = np.vstack([np.sqrt(w)[:, None] * f, np.sqrt(lam) * np.eye(f.shape[1])])
    due = np.vstack([np.sqrt(w)[:, None] * (x_e - y), np.sqrt(lam) * old.T])
    solved = np.linalg.lstsq(rows, due, rcond=None)[0].T
    new = solved @ whole if fit == "map" else solved
    spread = (w[:, None] * (x_e - w @ x_e / w.sum()) ** 2).sum()
    errors = [(w[:, None] * (y + out - x_e) ** 2).sum() / spread for out in (m, f @ solved.T)]
    if bias is None:
        return new, None, errors[0], errors[1]
    return new[:, :-1], new[:, -1], errors[0], errors[1]


CASES = [(fit, weighting) for fit in ("map", "weights") for weighting in ("none", "relative")]


def check(
    loaded: LoadedModel,
    batches: Sequence[PreparedBatch],
    start: int,
    stop: int,
    *,
    down: str = "mlp.down_proj",
    c: float = 1.0,
    near: float = 1e-6,
    scope: Any = "all",
) -> None:
    """Both fits and weightings against the reference."""
    gone = plan(*range(start, stop), depth=len(loaded.layers))
    path = loaded.family.layers_path(loaded.model)
    name = f"{path}.{start - 1}.{down}"
    module = loaded.model.get_submodule(name)
    before = {key: value.clone() for key, value in loaded.model.state_dict().items()}
    for fit, weighting in CASES:
        tensors, report = fit_linear(loaded, gone, batches, fit=fit, weighting=weighting, ridge=1e-2, scope=scope)
        weight, bias, old, new = reference(
            loaded,
            batches,
            start,
            stop,
            fit=fit,
            weighting=weighting,
            ridge=1e-2,
            down=down,
            c=c,
            scope=scope,
        )
        assert set(tensors) == {f"{name}.weight"} | ({f"{name}.bias"} if bias is not None else set())
        found = tensors[f"{name}.weight"]
        assert found.shape == module.weight.shape
        assert found.dtype == module.weight.dtype
        found = found.T if isinstance(module, transformers.pytorch_utils.Conv1D) else found
        assert np.abs(found.numpy() - weight).max() <= near * np.abs(weight).max()
        if bias is not None:
            assert np.abs(tensors[f"{name}.bias"].numpy() - bias).max() <= near * np.abs(bias).max()
        assert report[0].error_before == pytest.approx(old, rel=1e-6)
        assert report[0].error_after == pytest.approx(new, rel=1e-4, abs=1e-9)
        assert report[0].error_after < report[0].error_before
        assert report[0].positions == sum(int(batch.scope(scope).sum()) for batch in batches)
        assert report[0].parameters == sum(each.numel() for each in tensors.values())
        assert (report[0].cut.start, report[0].cut.stop) == (start, stop)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in loaded.model.modules())
    assert all(torch.equal(before[key], value) for key, value in loaded.model.state_dict().items())


@pytest.mark.parametrize("name", ["llama", "gpt2", "gpt_neox", "opt", "gpt_neo", "phi3"])
@pytest.mark.parametrize(("start", "stop"), [(2, 4), (4, 6)])
def test_it_is_least_squares(name: str, start: int, stop: int) -> None:
    loaded = text_model(name)
    batches = [batch_of(loaded), batch_of(loaded, (8, 12), first=4)]
    check(loaded, batches, start, stop, down=DOWN.get(name, "mlp.down_proj"))


def test_granite_multiplies_what_its_mlp_gives() -> None:
    loaded = text_model("granite")
    check(loaded, [batch_of(loaded)], 2, 5, c=0.8)


def test_a_bias_is_fitted_too() -> None:
    loaded = biased()
    check(loaded, [batch_of(loaded)], 2, 4)


def test_the_stream_before_the_mlp_is_what_llama_norms_for_it() -> None:
    """The reference takes y from x_s; here it comes from the model itself."""
    loaded = text_model()
    batches = [batch_of(loaded)]
    layer = loaded.layers[1]
    modules = {"y": layer.post_attention_layernorm, "down": layer.mlp.down_proj, "layer": layer}
    taken = states(loaded, batches, modules)
    np.testing.assert_allclose(taken["y.in"] + taken["down.out"], taken["layer.out"], rtol=1e-12)


@pytest.mark.parametrize("scope", ["audio", "response"])
def test_only_positions_in_the_scope_count(scope: str) -> None:
    loaded = text_model()
    check(loaded, [batch_of(loaded)], 2, 4, scope=scope)


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_speech_llm(tmp_path: Path, side: str) -> None:
    loaded = tiny_speech.loaded()
    loaded.model.double()
    check(loaded, speech_batches(loaded, tmp_path, side=side), 1, 3)


@pytest.mark.parametrize(
    ("name", "down"),
    [
        ("WhisperForConditionalGeneration", "fc2"),
        ("Qwen2AudioForConditionalGeneration", "mlp.down_proj"),
        ("GraniteSpeechForConditionalGeneration", "mlp.down_proj"),
        ("VoxtralForConditionalGeneration", "mlp.down_proj"),
    ],
)
def test_audio_llm_classes(name: str, down: str, tmp_path: Path) -> None:
    loaded = audio_model(name, tmp_path)
    batches = speech_batches(loaded, tmp_path, side="right")
    c = getattr(loaded.family.text_config(loaded.model), "residual_multiplier", 1.0)
    check(loaded, batches, 1, 3, down=down, c=c, near=1e-4)


@pytest.mark.parametrize("fit", ["map", "weights"])
def test_batches_order_and_padding_do_not_matter(fit: Any) -> None:
    loaded = text_model()
    alone = [batch_of(loaded, (n,), first=row) for row, n in enumerate(LENGTHS)]
    ways = [[batch_of(loaded)], [batch_of(loaded, side="right")], alone, alone[::-1]]
    found = [fit_linear(loaded, plan(2, 3), way, fit=fit) for way in ways]
    for tensors, report in found[1:]:
        for name, tensor in tensors.items():
            torch.testing.assert_close(tensor, found[0][0][name], rtol=1e-4, atol=1e-6)
        assert report[0].error_before == pytest.approx(found[0][1][0].error_before, rel=1e-5)
        assert report[0].error_after == pytest.approx(found[0][1][0].error_after, rel=1e-4)


def still(layer: nn.Module) -> None:
    """Let a Llama layer pass on what enters it."""
    layer.self_attn.o_proj.weight.zero_()
    layer.mlp.down_proj.weight.zero_()


@pytest.mark.parametrize("fit", ["map", "weights"])
def test_layers_that_do_nothing_leave_nothing_to_fit(fit: Any) -> None:
    loaded = text_model()
    still(loaded.layers[2])
    still(loaded.layers[3])
    tensors, report = fit_linear(loaded, plan(2, 3), [batch_of(loaded)], fit=fit)
    assert report[0].error_before == report[0].error_after == 0
    old = loaded.layers[1].mlp.down_proj.weight
    torch.testing.assert_close(tensors["model.layers.1.mlp.down_proj.weight"], old)


@pytest.mark.parametrize("stop", [4, 6])
@pytest.mark.parametrize("fit", ["map", "weights"])
def test_a_linear_block_is_found_again(fit: Any, stop: int) -> None:
    """Layer 2 adds A m, or A h, and what follows it adds nothing: exactly what can be folded into layer 1."""
    loaded = text_model()
    down = loaded.layers[1].mlp.down_proj
    for layer in loaded.layers[2:stop]:
        still(layer)
    width = {"map": 32, "weights": 48}[fit]
    linear = torch.randn(32, width, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) / 10
    said: list[Tensor] = []

    def note(_: object, args: tuple, output: Tensor) -> None:
        said[:] = [output if fit == "map" else args[0]]

    hooks = [
        down.register_forward_hook(note),
        loaded.layers[2].register_forward_hook(lambda _, __, output: output + said[0] @ linear.T),
    ]
    batches = [batch_of(loaded, (20, 17, 19, 22))]
    tensors, report = fit_linear(loaded, plan(*range(2, stop)), batches, fit=fit, ridge=1e-12, weighting="none")
    for hook in hooks:
        hook.remove()
    expected = down.weight + (linear @ down.weight if fit == "map" else linear)
    torch.testing.assert_close(tensors["model.layers.1.mlp.down_proj.weight"], expected, rtol=1e-5, atol=1e-5)
    assert report[0].error_before > 1e-4
    assert report[0].error_after < 1e-10


@pytest.mark.parametrize("fit", ["map", "weights"])
@pytest.mark.parametrize("ridge", [1e15, float("inf")])
def test_an_infinite_ridge_is_plain_pruning(fit: Any, ridge: float) -> None:
    loaded = biased()
    tensors, report = fit_linear(loaded, plan(2, 3), [batch_of(loaded)], fit=fit, ridge=ridge)
    for name, tensor in tensors.items():
        torch.testing.assert_close(tensor, loaded.model.get_parameter(name).data, rtol=1e-12, atol=1e-12)
    assert report[0].error_after == pytest.approx(report[0].error_before, rel=1e-9)


def test_a_lower_ridge_fits_closer() -> None:
    loaded = text_model()
    for fit, weighting in CASES:
        fits = LinearFits(loaded, plan(2, 3), fit=fit, weighting=weighting)
        fits.add(batch_of(loaded))
        errors = [fits.solve(ridge)[1][0].error_after for ridge in (10, 1e-1, 1e-3, 1e-5)]
        assert errors == sorted(errors, reverse=True)


def held_out_error(
    loaded: LoadedModel, batches: Sequence[PreparedBatch], fit: Any, weighting: Any, ridge: float, held: Any
) -> tuple[float, float]:
    """Relative error on `held` without and with the weights fitted on `batches`, layers 2 and 3 missing."""
    weight, bias, _, _ = reference(loaded, batches, 2, 4, fit=fit, weighting=weighting, ridge=ridge)
    taken = states(loaded, held, around(loaded, 2, 4, "mlp.down_proj"))
    x_s, x_e, h = taken["start.in"], taken["stop.out"], taken["down.in"]
    w = np.ones(len(h)) if weighting == "none" else 1 / (x_e**2).sum(1)
    new = x_s - taken["down.out"] + h @ weight.T + (0 if bias is None else bias)
    spread = (w[:, None] * (x_e - w @ x_e / w.sum()) ** 2).sum()
    return tuple((w[:, None] * (out - x_e) ** 2).sum() / spread for out in (x_s, new))


@pytest.mark.parametrize(("fit", "weighting"), CASES)
def test_the_ridge_that_errs_least_on_clips_held_out_is_taken(fit: Any, weighting: Any) -> None:
    loaded, fitted = biased(), [batch_of(biased())]
    held = [batch_of(loaded, first=20), batch_of(loaded, (5, 8), "right", first=30)]
    errors = {ridge: held_out_error(loaded, fitted, fit, weighting, ridge, held) for ridge in RIDGES}
    tensors, (report,) = fit_linear(loaded, plan(2, 3), fitted, held_out=held, fit=fit, weighting=weighting, ridge=None)
    assert report.ridge == min(RIDGES, key=lambda ridge: errors[ridge][1])
    before, after = errors[report.ridge]
    assert report.held_out_before == pytest.approx(before, rel=1e-6)
    assert report.held_out_after == pytest.approx(after, rel=1e-6)
    assert (report.positions, report.held_out_positions) == (sum(LENGTHS), sum(LENGTHS) + 13)
    # What was held out decides the ridge and nothing else.
    same, _ = fit_linear(loaded, plan(2, 3), fitted, fit=fit, weighting=weighting, ridge=report.ridge)
    assert all(torch.equal(tensors[name], same[name]) for name in same)


def test_a_fit_on_few_positions_says_that_it_cannot_be_relied_on() -> None:
    """As many unknowns as positions: the fit is perfect, and worse than none on other clips."""
    loaded = text_model()
    _, (report,) = fit_linear(
        loaded, plan(2, 3), [batch_of(loaded, (9, 6))], held_out=[batch_of(loaded, first=20)], ridge=1e-9
    )
    assert report.error_after < 1e-3 < report.error_before
    assert report.worse
    assert report.underdetermined
    assert "15 positions are few for 48 unknowns of each output; heal with more clips" in report.notes[1]
    batches = [batch_of(loaded, first=first) for first in range(0, 40, 4)]
    _, (plenty,) = fit_linear(loaded, plan(2, 3), batches)
    assert not plenty.underdetermined
    assert plenty.notes[0].endswith("no position was held out; ridge 0.1")


@pytest.mark.parametrize(("fit", "weighting"), CASES)
def test_several_cuts_in_one_pass(fit: Any, weighting: Any) -> None:
    loaded = text_model()
    batches = [batch_of(loaded)]
    options: dict[str, Any] = {"fit": fit, "weighting": weighting}
    tensors, report = fit_linear(loaded, plan(1, 3, 5), iter(batches), **options)
    assert list(tensors) == [f"model.layers.{layer}.mlp.down_proj.weight" for layer in (0, 1, 2)]
    for start, name, each in zip((1, 3, 5), tensors, report, strict=True):
        alone, single = fit_linear(loaded, plan(start), batches, **options)
        assert list(alone) == [f"model.layers.{start - 1}.mlp.down_proj.weight"]
        torch.testing.assert_close(tensors[name], next(iter(alone.values())), rtol=1e-9, atol=1e-12)
        assert each.error_after == pytest.approx(single[0].error_after)
        assert each.cut.layers == [start]


@pytest.mark.parametrize("make", [text_model, biased, lambda: text_model("granite")])
@pytest.mark.parametrize("fit", ["map", "weights"])
def test_the_healed_model_gives_what_was_fitted(make: Any, fit: Any) -> None:
    teacher = make()
    batches = [batch_of(teacher)]
    tensors, report = fit_linear(teacher, plan(2, 3), batches, fit=fit, weighting="none")
    taken = states(teacher, batches, around(teacher, 2, 4, "mlp.down_proj"))
    student = copy.deepcopy(teacher)
    prune_in_place(student.model, plan(2, 3))
    plain = states(student, batches, {"receiver": student.layers[2]})["receiver.in"]
    np.testing.assert_allclose(plain, taken["start.in"])
    apply_linear(student.model, tensors)
    c = getattr(teacher.model.config, "residual_multiplier", 1.0)
    new = student.layers[1].mlp.down_proj
    fitted = torch.from_numpy(taken["down.in"]) @ new.weight.T + (0 if new.bias is None else new.bias)
    due = taken["start.in"] - c * taken["down.out"] + c * fitted.numpy()
    healed = states(student, batches, {"receiver": student.layers[2]})["receiver.in"]
    np.testing.assert_allclose(healed, due, rtol=1e-9, atol=1e-9)
    target = taken["stop.out"]
    error = ((healed - target) ** 2).sum() / ((target - target.mean(0)) ** 2).sum()
    assert error == pytest.approx(report[0].error_after, rel=1e-6)


def test_it_heals_a_speech_llm_in_memory(tmp_path: Path) -> None:
    loaded = tiny_speech.loaded()
    with torch.inference_mode():
        tensors, _ = fit_linear(loaded, plan(1, 2, depth=4), speech_batches(loaded, tmp_path))
    assert list(tensors) == ["decoder.model.layers.0.mlp.down_proj.weight"]
    assert not any(tensor.is_inference() or tensor.requires_grad for tensor in tensors.values())
    parameter = loaded.layers[0].mlp.down_proj.weight
    with pruned(loaded.model, [1, 2]):
        apply_linear(loaded.model, tensors)
    assert parameter is loaded.layers[0].mlp.down_proj.weight
    assert torch.equal(parameter, next(iter(tensors.values())))


def test_a_massive_first_position_counts_like_the_others_if_relative() -> None:
    """One position a thousand times longer decides the plain fit, and hardly touches the relative one."""
    random = np.random.default_rng(0)
    f, r = (torch.from_numpy(random.standard_normal((300, width))) for width in (6, 4))
    moved = []
    for weights in (torch.ones(301), torch.cat([torch.ones(300), torch.tensor([1e-6])])):
        solved = []
        for rows in (300, 301):
            sums = NormalEquations()
            long = torch.ones(1, 6) * 1000, -torch.ones(1, 4) * 1000
            sums.add(torch.cat([f, long[0]])[:rows], torch.cat([r, long[1]])[:rows], weights[:rows])
            solved.append(sums.solve(1e-3))
        moved.append(float((solved[1] - solved[0]).abs().max()))
    assert moved[0] > 0.1
    assert moved[1] < 0.02


def test_long_sums_go_in_parts() -> None:
    random = np.random.default_rng(1)
    count = ROWS + 5
    f, r = (torch.from_numpy(random.standard_normal((count, width))) for width in (5, 3))
    w = torch.from_numpy(random.uniform(size=count))
    sums = NormalEquations()
    sums.add(f, r, w)
    rows = np.sqrt(w.numpy())[:, None]
    expected = np.linalg.lstsq(rows * f.numpy(), rows * r.numpy(), rcond=None)[0].T
    np.testing.assert_allclose(sums.solve(1e-12), expected, atol=1e-9)
    off = (w[:, None] * (f @ torch.from_numpy(expected).T - r) ** 2).sum()
    assert sums.error(torch.from_numpy(expected)) == pytest.approx(float(off))
    assert sums.error() == pytest.approx(float((w[:, None] * r**2).sum()))


def test_features_that_never_move_fold_nothing() -> None:
    sums = NormalEquations()
    sums.add(torch.zeros(3, 2), torch.ones(3, 4), torch.ones(3))
    assert torch.equal(sums.solve(0.1), torch.zeros(4, 2, dtype=torch.float64))


def test_sums_that_overflow_are_refused() -> None:
    sums = NormalEquations()
    sums.add(torch.full((3, 2), 1e200, dtype=torch.float64), torch.ones(3, 4), torch.ones(3))
    with pytest.raises(MeasureError, match="no finite solution"):
        sums.solve(0.1)


def test_nothing_to_remove_is_nothing_to_fit() -> None:
    loaded = text_model()
    assert fit_linear(loaded, plan(), [batch_of(loaded)]) == ({}, [])


class Quantised(nn.Linear):
    """Weights in int8, as bitsandbytes keeps them in a linear layer's `weight`."""

    def forward(self, x: Tensor) -> Tensor:
        return x @ (self.weight.to(x.dtype) * 0.01).T


def quantise(loaded: LoadedModel) -> None:
    small = Quantised(48, 32, bias=False)
    small.weight = nn.Parameter((torch.randn(32, 48) * 20).to(torch.int8), requires_grad=False)
    loaded.layers[1].mlp.down_proj = small


def adapt(loaded: LoadedModel) -> None:
    """Add a low-rank update beside the down projection, as PEFT does."""

    class Adapted(nn.Module):
        def __init__(self, base: nn.Module) -> None:
            super().__init__()
            self.base_layer, self.a, self.b = base, nn.Linear(48, 2).double(), nn.Linear(2, 32).double()

        def forward(self, x: Tensor) -> Tensor:
            return self.base_layer(x) + self.b(self.a(x))

    loaded.layers[1].mlp.down_proj = Adapted(loaded.layers[1].mlp.down_proj)


@pytest.mark.parametrize(
    ("name", "layers", "why"),
    [
        ("llama", (0, 1), "layers 0 to 1: no layer stands before the first one"),
        ("gemma3", (2, 3), r"layer 1 \(Gemma3DecoderLayer\): a norm stands between its MLP and the residual"),
        ("qwen3_moe", (2,), r"layer 1 \(Qwen3MoeDecoderLayer\): its MLP is a mixture of experts"),
        ("deepseek_v3", (4, 5), "mixture of experts"),
    ],
)
def test_what_cannot_be_folded_is_refused_before_anything_runs(name: str, layers: tuple[int, ...], why: str) -> None:
    loaded = text_model(name)
    with pytest.raises(ModelError, match=f"{why}.*; heal with another target"):
        LinearFits(loaded, plan(*layers))


@pytest.mark.parametrize("shared", ["module", "weight"])
def test_a_down_projection_that_two_layers_share_is_refused(shared: str) -> None:
    loaded = text_model()
    first, second = (loaded.layers[layer].mlp for layer in (1, 4))
    if shared == "module":
        second.down_proj = first.down_proj
    else:
        second.down_proj.weight = first.down_proj.weight
    with pytest.raises(ModelError, match=r"layer 1 \(LlamaDecoderLayer\): layer 4 shares its down projection"):
        LinearFits(loaded, plan(2, 3))


@pytest.mark.parametrize("name", ["qwen3_moe", "deepseek_v3"])
def test_a_dense_layer_of_a_mixture_is_fitted(name: str) -> None:
    loaded = text_model(name)
    loaded.model.float()  # experts know no float64
    dense = {"qwen3_moe": 3, "deepseek_v3": 1}[name]
    check(loaded, [batch_of(loaded)], dense + 1, dense + 2, near=1e-4)


@pytest.mark.parametrize(
    ("change", "why"),
    [(quantise, "quantised"), (adapt, "not the output of one linear layer")],
)
def test_a_down_projection_that_is_none_is_refused(change: Any, why: str) -> None:
    loaded = text_model()
    change(loaded)
    with pytest.raises(ModelError, match=rf"layer 1 \(LlamaDecoderLayer\): .*{why}"):
        fit_linear(loaded, plan(2, 3), [batch_of(loaded)])
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in loaded.model.modules())


def test_layers_that_are_something_else_are_refused() -> None:
    model = BUILDS["Nemotron3_5TranscribeForConditionalGeneration"].build(6).requires_grad_(False)
    loaded = LoadedModel("hybrid", Path(), model, None, None, families.find(model), "audio_llm")
    with pytest.raises(ModelError, match=r"not attention \+ MLP.*heal with another target"):
        fit_linear(loaded, plan(2, 3), [batch_of(loaded, side="right")])


def test_layers_that_do_not_add_up_are_refused() -> None:
    loaded = text_model()
    hook = loaded.layers[1].register_forward_hook(lambda _, __, output: output + output.roll(1, -1))
    with pytest.raises(ModelError, match=r"what leaves one is not what entered it.*heal with another target"):
        fit_linear(loaded, plan(2, 3), [batch_of(loaded)])
    hook.remove()
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in loaded.model.modules())


def test_plans_and_words_that_do_not_fit_are_refused() -> None:
    loaded = text_model()
    with pytest.raises(PlanError, match="decoder of 8 layers"):
        LinearFits(loaded, plan(2, depth=8))
    with pytest.raises(PlanError, match="only the mlp"):
        LinearFits(loaded, plan(2).model_copy(update={"part": "mlp"}))
    with pytest.raises(UsageError, match="unknown fit"):
        LinearFits(loaded, plan(2), fit="affine")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"a ridge of 0.*give a number above 0"):
        fit_linear(loaded, plan(2), [batch_of(loaded)], ridge=0)


def test_no_positions_is_an_error() -> None:
    loaded = text_model()
    with pytest.raises(MeasureError, match="no position to fit"):
        fit_linear(loaded, plan(2), [])
    batch = batch_of(loaded, (4, 4))  # a prompt token and a response: no audio
    with pytest.raises(MeasureError, match="no position to fit"):
        fit_linear(loaded, plan(2), [batch], scope="audio")
    alone = batch_of(loaded, (5,))
    with pytest.raises(MeasureError, match="after the cut is the same at all positions; fit with more clips"):
        fit_linear(loaded, plan(2), [alone], scope="last")


def test_a_state_that_is_no_number_is_refused_by_its_clip() -> None:
    loaded = text_model()
    good, bad = batch_of(loaded), batch_of(loaded, first=4)
    bad.embeds[2, -1] = torch.inf
    fits = LinearFits(loaded, plan(2, 3))
    fits.add(good)
    with pytest.raises(MeasureError, match="clip u6: a state around layers 2-3 is zero or not finite"):
        fits.add(bad)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in loaded.model.modules())


def test_tensors_go_where_they_fit_or_nowhere() -> None:
    loaded = text_model()
    loaded.model.to(torch.bfloat16)
    name = "model.layers.0.mlp.down_proj.weight"
    old = loaded.layers[0].mlp.down_proj.weight.clone()
    good = torch.full(old.shape, 1.00001, dtype=torch.float64)
    with pytest.raises(ModelError, match=r"has no parameter model.layers.9.mlp.down_proj.weight; use the plan"):
        apply_linear(loaded.model, {name: good, "model.layers.9.mlp.down_proj.weight": good})
    with pytest.raises(ModelError, match=r"has shape \(32, 48\), and the new one \(48, 32\)"):
        apply_linear(loaded.model, {name: good, "model.layers.1.mlp.down_proj.weight": good.T})
    assert torch.equal(loaded.layers[0].mlp.down_proj.weight, old)
    apply_linear(loaded.model, {name: good})
    assert torch.equal(loaded.layers[0].mlp.down_proj.weight, torch.ones_like(old))
