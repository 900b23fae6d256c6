"""The distillation loss against torch's own, and teachers of other people's classes.

N positions, D hidden size, V student's vocabulary, U shared ids, K stored ids.
"""

from __future__ import annotations

import shutil

import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from tallyformer.data.batch import IGNORED, Batch
from tallyformer.errors import ArtifactError, TrainingError
from tallyformer.training.chunked_head import Head, chunked_loss
from tallyformer.training.distillation import (
    DistillationWeights,
    StoredTargets,
    distilled,
)
from tallyformer.training.micro_batch import Placement
from tallyformer.training.precision import Precision
from tallyformer.training.teacher import Teacher
from tallyformer.training.teacher_cache import BINDING, ROWS, TeacherCache

from .jobs import VOCABULARY, RandomBatches, tiny_model

FLOAT32 = {"rtol": 2e-4, "atol": 2e-6}
CPU = Precision("fp32", torch.device("cpu"))


class Known:
    """Targets that are there already."""

    def __init__(self, logits_NU: torch.Tensor):
        self.whole = logits_NU

    def logits(self, chunk: slice) -> torch.Tensor:
        return self.whole[chunk]


def problem(n: int, v: int, u: int, seed: int):
    g = torch.Generator().manual_seed(seed)
    h = torch.randn(n, 6, generator=g).requires_grad_()
    w = torch.randn(v, 6, generator=g).requires_grad_()
    teacher = 2 * torch.randn(n, u, generator=g)
    labels = torch.randint(v, (n,), generator=g)
    labels[torch.rand(n, generator=g) < 0.3] = IGNORED
    return h, w, teacher, labels


def plain(h, w, teacher, labels, how: DistillationWeights):
    """As one would write it with whole logits."""
    keep = labels != IGNORED
    logits, teacher, u = (h @ w.T)[keep], teacher[keep], teacher.shape[1]
    t = how.temperature
    kl = functional.kl_div(
        functional.log_softmax(logits[:, :u] / t, 1),
        functional.log_softmax(teacher / t, 1),
        reduction="sum",
        log_target=True,
    )
    ce = functional.cross_entropy(logits, labels[keep], reduction="sum")
    z = how.z_loss * logits.logsumexp(1).square().sum()
    return how.alpha * t**2 * kl + (1 - how.alpha) * ce + z, ce, kl


def found_by(h, w, targets, labels, how, chunk=None, scale=0.3):
    loss = distilled(how)(labels, targets)
    objective, sums = chunked_loss(h, Head(w), loss, scale=scale, dtype=torch.float32, chunk=chunk)
    return sums, torch.autograd.grad(objective, (h, w))


@given(
    n=st.integers(1, 15),
    v=st.integers(4, 30),
    missing=st.integers(0, 2),
    chunk=st.integers(1, 16),
    temperature=st.sampled_from([1.0, 2.5, 4.0]),
    alpha=st.sampled_from([0.0, 0.4, 1.0]),
    z_loss=st.sampled_from([0.0, 1e-2]),
    seed=st.integers(0, 99),
)
@settings(max_examples=60)
def test_loss_and_gradients_equal_torch_on_whole_logits(
    n, v, missing, chunk, temperature, alpha, z_loss, seed
):
    h, w, teacher, labels = problem(n, v, v - missing, seed)
    how = DistillationWeights(temperature, alpha, z_loss)
    expected = plain(h, w, teacher, labels, how)
    wanted = torch.autograd.grad(0.3 * expected[0], (h, w))
    sums, gradients = found_by(h, w, Known(teacher), labels, how, chunk)
    torch.testing.assert_close(sums, torch.stack(expected), **FLOAT32)
    for got, want in zip(gradients, wanted, strict=True):
        torch.testing.assert_close(got, want, **FLOAT32)


def stored(teacher: torch.Tensor, k: int, temperature: float) -> StoredTargets:
    log_p = (teacher / temperature).log_softmax(1)
    top = log_p.topk(k, dim=1)
    return StoredTargets(top.indices, top.values, teacher.shape[1])


def bucket_objective(h, w, targets: StoredTargets, labels, how: DistillationWeights):
    """KL over K ids and one bucket for the rest, by autograd."""
    keep = labels != IGNORED
    logits = (h @ w.T)[keep]
    ids, log_t = targets.ids[keep], targets.log_p[keep]
    s = (logits[:, : targets.shared] / how.temperature).softmax(1).gather(1, ids)
    t = log_t.exp()
    s_tail, t_tail = 1 - s.sum(1), 1 - t.sum(1)
    kl = (t * (log_t - s.log())).sum() + (t_tail * (t_tail / s_tail).log()).sum()
    ce = functional.cross_entropy(logits, labels[keep], reduction="sum")
    z = how.z_loss * logits.logsumexp(1).square().sum()
    return how.alpha * how.temperature**2 * kl + (1 - how.alpha) * ce + z, ce, kl


@given(
    k=st.integers(1, 8),
    chunk=st.integers(1, 16),
    missing=st.integers(0, 2),
    alpha=st.sampled_from([0.4, 1.0]),
    seed=st.integers(0, 99),
)
@settings(max_examples=40)
def test_stored_targets_give_the_gradients_of_the_tail_bucket(k, chunk, missing, alpha, seed):
    h, w, teacher, labels = problem(9, 20, 20 - missing, seed)
    how = DistillationWeights(2.5, alpha, 1e-2)
    targets = stored(teacher, k, how.temperature)
    expected = bucket_objective(h, w, targets, labels, how)
    wanted = torch.autograd.grad(0.3 * expected[0], (h, w))
    sums, gradients = found_by(h, w, targets, labels, how, chunk)
    # 1 - sum loses the last digits of a small tail.
    torch.testing.assert_close(sums, torch.stack(expected), rtol=1e-3, atol=1e-4)
    for got, want in zip(gradients, wanted, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-3, atol=1e-4)


@given(st.integers(0, 99))
def test_more_stored_ids_bring_the_kl_closer_to_the_whole_from_below(seed):
    h, w, teacher, labels = problem(6, 20, 20, seed)
    how = DistillationWeights(2.0, 1.0, 0.0)
    whole = found_by(h, w, Known(teacher), labels, how)[0][2].item()
    kls = [
        found_by(h, w, stored(teacher, k, 2.0), labels, how)[0][2].item() for k in (1, 4, 12, 19)
    ]
    # Merging outcomes never raises a divergence; the slack is float32's.
    assert all(a <= b + 1e-4 for a, b in zip(kls, [*kls[1:], whole], strict=True))
    assert kls[-1] == pytest.approx(whole, rel=1e-2, abs=1e-3)


def gpt2(**overrides) -> transformers.GPT2LMHeadModel:
    torch.manual_seed(1)
    values = {"vocab_size": 50, "n_positions": 32, "n_embd": 16, "n_layer": 2, "n_head": 2}
    # Ten times the usual spread: a mask that is ignored must show.
    config = transformers.GPT2Config(**{**values, "initializer_range": 0.2, **overrides})
    return transformers.GPT2LMHeadModel(config)


def granite() -> transformers.GraniteForCausalLM:
    torch.manual_seed(1)
    return transformers.GraniteForCausalLM(
        transformers.GraniteConfig(
            vocab_size=50,
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            num_key_value_heads=2,
            logits_scaling=4.0,
            initializer_range=0.2,
        )
    )


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_a_teacher_sees_each_packed_document_as_if_it_were_alone(attention):
    model = gpt2()
    model.set_attn_implementation(attention)
    teacher = Teacher(model, 50, "gpt2")
    ids = torch.randint(50, (1, 12), generator=torch.Generator().manual_seed(2))
    segments = torch.tensor([[0] * 5 + [1] * 7], dtype=torch.int32)
    packed = Placement(CPU.device)(Batch(ids, ids, segments))
    logits = teacher.targets(packed, CPU, 1.0).logits(slice(0, 12))
    for part in (slice(0, 5), slice(5, 12)):
        alone = model(ids[:, part]).logits[0]
        torch.testing.assert_close(logits[part], alone, rtol=1e-4, atol=1e-5)


def test_a_teacher_with_another_head_gives_the_logits_of_its_own_forward():
    model = granite()
    teacher = Teacher(model, 40, "granite")
    ids = torch.randint(50, (2, 64), generator=torch.Generator().manual_seed(2))
    labels = ids.clone()
    labels[0, 3:] = labels[1, 60:] = IGNORED
    inputs = Placement(CPU.device)(Batch(ids, labels, None))
    assert inputs.rows is not None and len(inputs.rows) == 64
    expected = model(ids).logits.flatten(0, 1)[inputs.rows, :40]
    found = teacher.targets(inputs, CPU, 1.0).logits(slice(0, len(inputs.rows)))
    torch.testing.assert_close(found, expected, **FLOAT32)


def test_a_teacher_that_ignores_the_mask_is_refused():
    torch.manual_seed(1)
    config = transformers.MambaConfig(
        vocab_size=50, hidden_size=16, state_size=4, num_hidden_layers=1, initializer_range=0.5
    )
    teacher = Teacher(transformers.MambaForCausalLM(config), 50, "mamba")
    with pytest.raises(TrainingError, match="attend_across_documents"):
        teacher.require_isolation()


def test_a_teacher_keeps_no_gradients():
    teacher = Teacher(gpt2(), 50, "gpt2")
    assert not any(p.requires_grad for p in teacher.model.parameters())
    assert not teacher.model.training


def inputs(index: int, rows: int = 2):
    return Placement(CPU.device)(RandomBatches(rows=rows).batch(index))


SHAPE = {"context": 12, "top_k": 7, "temperatures": [3.0, 2.5]}


def cache_in(folder, teacher=None, **changes) -> TeacherCache:
    teacher = teacher or Teacher(tiny_model(initializer_range=0.3), VOCABULARY, "t")
    return TeacherCache(folder, {"shards": "a"}, teacher, **{**SHAPE, **changes})


def test_a_stored_pass_is_the_teachers_distribution_at_every_temperature(tmp_path):
    cache = cache_in(tmp_path)
    batch = inputs(0)
    whole = cache.teacher.targets(batch, CPU, 1.0).logits(slice(0, 1000))
    for temperature in (2.5, 3.0):
        targets = cache.targets(batch, CPU, temperature)
        log_p = (whole / temperature).log_softmax(1).gather(1, targets.ids)
        # float16 keeps 11 bits of log-probabilities up to about 10.
        torch.testing.assert_close(targets.log_p, log_p, rtol=0, atol=5e-3)
        assert torch.equal(targets.ids, whole.topk(7, dim=1).indices)


def test_stored_rows_are_found_in_other_batches_and_by_other_processes(tmp_path):
    cache = cache_in(tmp_path)
    before = [cache.targets(inputs(i), CPU, 2.5) for i in range(3)]
    size = (tmp_path / ROWS).stat().st_size
    again = cache_in(tmp_path)
    for number, expected in enumerate(before):
        found = again.targets(inputs(number), CPU, 2.5)
        assert torch.equal(found.ids, expected.ids)
        assert torch.equal(found.log_p, expected.log_p)
    assert (tmp_path / ROWS).stat().st_size == size


@given(st.integers(1, 3000))
@settings(max_examples=20)
def test_a_row_torn_by_a_kill_is_computed_again(tmp_path_factory, cut):
    folder = tmp_path_factory.mktemp("cache")
    expected = cache_in(folder).targets(inputs(1), CPU, 3.0)
    rows = folder / ROWS
    whole = rows.read_bytes()
    rows.write_bytes(whole[: max(0, len(whole) - cut)])
    found = cache_in(folder).targets(inputs(1), CPU, 3.0)
    torch.testing.assert_close(found.log_p, expected.log_p, rtol=0, atol=1e-5)
    assert len(rows.read_bytes()) == len(whole)


def test_an_altered_row_is_an_error_that_names_the_file(tmp_path):
    cache_in(tmp_path).targets(inputs(1), CPU, 3.0)
    data = bytearray((tmp_path / ROWS).read_bytes())
    data[100] ^= 1
    (tmp_path / ROWS).write_bytes(data)
    with pytest.raises(ArtifactError, match=r"rows\.bin.*damaged"):
        cache_in(tmp_path).targets(inputs(1), CPU, 3.0)


def test_a_stored_pass_of_another_run_is_refused(tmp_path):
    cache_in(tmp_path)
    with pytest.raises(ArtifactError, match=r"another run.*temperatures"):
        cache_in(tmp_path, temperatures=[1.0])


def test_rows_without_the_note_of_their_pass_are_refused(tmp_path):
    cache_in(tmp_path).targets(inputs(1), CPU, 3.0)
    (tmp_path / BINDING).unlink()
    with pytest.raises(ArtifactError, match=r"binding\.json: missing\. Delete"):
        cache_in(tmp_path)


@pytest.mark.parametrize("content", [b"", b"null", b"[1]", b"{}", b"\xff", b"[" * 100000])
def test_a_damaged_note_of_a_pass_is_one_line(tmp_path, content):
    cache_in(tmp_path).targets(inputs(1), CPU, 3.0)
    (tmp_path / BINDING).write_bytes(content)
    with pytest.raises(ArtifactError, match=r"binding\.json: damaged .*Delete"):
        cache_in(tmp_path)


def test_rows_under_the_note_of_another_pass_are_never_used(tmp_path):
    """The teacher has changed, and the folder's note with it."""
    one = tmp_path / "one"
    cache_in(one).targets(inputs(1), CPU, 3.0)
    changed = Teacher(tiny_model(initializer_range=0.6), VOCABULARY, "t")
    expected = TeacherCache(tmp_path / "two", {"shards": "b"}, changed, **SHAPE)
    expected = expected.targets(inputs(1), CPU, 3.0)
    shutil.copy(tmp_path / "two" / BINDING, one / BINDING)
    found = TeacherCache(one, {"shards": "b"}, changed, **SHAPE).targets(inputs(1), CPU, 3.0)
    assert torch.equal(found.log_p, expected.log_p)
