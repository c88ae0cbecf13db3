"""Shares of a batch in threads, and the devices that a user may ask for."""

import threading
import time

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from isingflow.architectures.build import build_flow
from isingflow.errors import DeviceUnavailable, IsingflowError
from isingflow.flows import gradient_flows
from isingflow.lattice import square
from isingflow.runs.config import FlowConfig
from isingflow.runtime.devices import resolve
from isingflow.runtime.parallel import Workers, workers
from isingflow.targets.hubbard_stratonovich import HubbardStratonovich

CPU = torch.device("cpu")


@pytest.fixture
def three_threads():
    """As on a machine with three cores, whatever this one has."""
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def pool():
    pool = Workers(3)
    yield pool
    pool.close()


@settings(max_examples=30)
@given(count=st.integers(1, 5), size=st.integers(1, 40))
def test_shares_are_the_batch_in_order(count, size):
    """Together the whole batch; never empty, never more than there are threads, of nearly equal size."""
    pool = Workers(count)
    batch = torch.arange(2.0 * size).view(size, 2)
    shares = pool.map(lambda share: share, batch)
    pool.close()
    assert torch.equal(torch.cat(shares), batch)
    sizes = [len(share) for share in shares]
    assert 1 <= len(sizes) <= count and min(sizes) >= 1
    assert max(sizes) == -(-size // count)


def test_results_come_in_order_whatever_the_timing(pool):
    def slowest_first(share):
        time.sleep(0.05 * (2 - share[0].item() // 2))
        return share[0].item()

    assert pool.map(slowest_first, torch.arange(6.0)) == [0.0, 2.0, 4.0]


def test_shares_run_at_the_same_time_in_different_threads(pool):
    barrier = threading.Barrier(3, timeout=20)

    def meet(share):
        barrier.wait()
        return threading.get_ident()

    threads = pool.map(meet, torch.arange(3.0))
    assert len(set(threads)) == 3 and threading.get_ident() not in threads


@pytest.mark.parametrize(("count", "size"), [(1, 5), (3, 1)])
def test_one_share_runs_in_the_caller_s_thread(count, size):
    pool = Workers(count)
    assert pool.map(lambda share: threading.get_ident(), torch.zeros(size)) == [threading.get_ident()]
    pool.close()


@pytest.mark.parametrize("enabled", [True, False])
@pytest.mark.parametrize("count", [1, 3])
def test_gradients_are_on_or_off_as_for_the_caller(count, enabled):
    pool = Workers(count)
    with torch.set_grad_enabled(enabled):
        assert set(pool.map(lambda share: torch.is_grad_enabled(), torch.zeros(3))) == {enabled}
    with torch.set_grad_enabled(not enabled):
        assert set(pool.map(lambda share: torch.is_grad_enabled(), torch.zeros(3))) == {not enabled}
    pool.close()


def test_a_function_that_changes_the_mode_does_not_change_the_next_share_s(pool):
    def switch_off(share):
        before = torch.is_grad_enabled()
        torch.set_grad_enabled(False)
        return before

    for _ in range(3):
        assert pool.map(switch_off, torch.zeros(3)) == [True] * 3


def test_gradients_of_shares_add_up_to_the_batch_s(pool):
    weight = torch.randn(4, dtype=torch.float64, requires_grad=True)
    batch = torch.randn(10, 4, dtype=torch.float64)

    def differentiate(share):
        return torch.autograd.grad((share @ weight).tanh().sum(), weight)[0]

    torch.testing.assert_close(sum(pool.map(differentiate, batch)), differentiate(batch), rtol=1e-13, atol=1e-13)


class Broken(Exception):
    pass


@pytest.mark.parametrize("count", [1, 3])
def test_errors_come_through_and_the_pool_survives(count):
    pool = Workers(count)

    def fail_on_large(share):
        if share.max() > 4:
            raise Broken("the last share")
        return share

    with pytest.raises(Broken, match="the last share"):
        pool.map(fail_on_large, torch.arange(6.0))
    assert torch.equal(torch.cat(pool.map(lambda share: share, torch.arange(6.0))), torch.arange(6.0))
    pool.close()


def test_the_first_share_s_error_is_the_one_raised(pool):
    def fail(share):
        time.sleep(0.05 * (2 - share[0].item()))
        raise Broken(f"share {share[0].item():.0f}")

    with pytest.raises(Broken, match="share 0"):
        pool.map(fail, torch.arange(3.0))


def test_each_worker_computes_alone_and_the_number_of_threads_is_restored(three_threads):
    with workers(CPU) as pool:
        assert pool.count == 3
        assert torch.get_num_threads() == 1
        assert pool.map(lambda share: torch.get_num_threads(), torch.zeros(3)) == [1, 1, 1]
    assert torch.get_num_threads() == 3


def test_the_number_of_threads_is_restored_after_an_error(three_threads):
    with pytest.raises(Broken), workers(CPU):
        raise Broken
    assert torch.get_num_threads() == 3


def test_nested_workers_have_nothing_left_to_share(three_threads):
    with workers(CPU), workers(CPU) as inner:
        assert inner.count == 1
    assert torch.get_num_threads() == 3


def test_threads_end_with_the_block(three_threads):
    before = threading.active_count()
    with workers(CPU) as pool:
        pool.map(lambda share: share, torch.zeros(3))
        assert threading.active_count() > before
    assert threading.active_count() == before


def test_there_is_one_worker_on_a_gpu(three_threads):
    with workers(torch.device("cuda")) as pool:
        assert pool.count == 1 and torch.get_num_threads() == 3


def test_one_thread_has_one_worker():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with workers(CPU) as pool:
        assert pool.count == 1
    torch.set_num_threads(before)


@pytest.mark.parametrize("potential", ["lattice", "dense"])
def test_flows_give_the_same_numbers_every_time(potential, three_threads):
    """Bit for bit between runs with the same number of threads, and to rounding with another number."""
    flow = build_flow(HubbardStratonovich(square(4), 0.4), FlowConfig(potential=potential, hidden=4), seed=0)
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    z = flow.noise(20, torch.Generator().manual_seed(2))
    parameters = list(flow.parameters())

    def differentiate(share):
        x, logdet = flow(share)
        return x.detach(), *torch.autograd.grad(x.square().sum() + logdet.sum(), parameters)

    def result():
        with workers(CPU) as pool:
            fields, *gradients = zip(*pool.map(differentiate, z), strict=True)
        return [torch.cat(fields), *map(sum, gradients)]

    first = result()
    for _ in range(5):
        assert all(map(torch.equal, result(), first))
    for ours, alone in zip(first, differentiate(z), strict=True):
        torch.testing.assert_close(ours, alone, rtol=1e-3, atol=1e-4 * float(alone.abs().max()))
    assert gradient_flows(flow)[0].steps == FlowConfig().steps


# --- devices


@pytest.fixture
def gpus(monkeypatch):
    """Pretends that the machine has this many CUDA devices."""

    def pretend(count):
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)

    return pretend


@pytest.mark.parametrize(
    ("name", "count", "device"),
    [
        ("cpu", 0, "cpu"),
        ("cpu", 2, "cpu"),
        ("auto", 0, "cpu"),
        ("auto", 1, "cuda"),
        ("cuda", 1, "cuda"),
        ("cuda:0", 1, "cuda:0"),
        ("cuda:1", 2, "cuda:1"),
    ],
)
def test_devices_that_exist(gpus, name, count, device):
    gpus(count)
    assert resolve(name) == torch.device(device)


@pytest.mark.parametrize(
    ("name", "count", "message"),
    [
        ("cuda", 0, "device cuda: this machine has no CUDA device$"),
        ("cuda:0", 0, "device cuda:0: this machine has no CUDA device$"),
        ("cuda:1", 1, "device cuda:1: this machine has 1 CUDA device$"),
        ("cuda:7", 2, "device cuda:7: this machine has 2 CUDA devices$"),
        ("cuda:99999999999999999999", 1, "expected auto, cpu, cuda or cuda:N$"),
    ],
)
def test_devices_that_do_not_exist(gpus, name, count, message):
    gpus(count)
    with pytest.raises(DeviceUnavailable, match=message):
        resolve(name)


@pytest.mark.parametrize(
    "name",
    ["", "gpu", "CUDA", "cuda0", "cuda:", "cuda:a", "cuda:-1", "cuda:1:2", "cuda:²", "cuda: 0", "cpu:", "mps", ":0"],
)
@pytest.mark.parametrize("count", [0, 3])
def test_names_that_are_no_devices(gpus, name, count):
    """Refused in our own words, never by whatever torch makes of them."""
    gpus(count)
    with pytest.raises(DeviceUnavailable, match=r"expected auto, cpu, cuda or cuda:N$"):
        resolve(name)


@pytest.mark.parametrize(
    "thing", [None, 0, 1.5, b"cpu", ["cpu"], torch.device("meta"), torch.device("mps"), torch.zeros(1)]
)
def test_what_is_no_device(thing):
    with pytest.raises(DeviceUnavailable, match=r"^device is .*, expected auto, cpu, cuda or cuda:N$"):
        resolve(thing)


@pytest.mark.parametrize(
    ("device", "resolved"), [("cuda:1", "cuda:1"), ("cuda", "cuda"), ("cpu:0", "cpu"), ("cpu", "cpu")]
)
def test_torchs_own_devices_are_looked_for_too(gpus, device, resolved):
    gpus(2)
    assert resolve(torch.device(device)) == torch.device(resolved)
    gpus(1 if device == "cuda:1" else 0)
    if device.startswith("cuda"):
        with pytest.raises(DeviceUnavailable, match="this machine has"):
            resolve(torch.device(device))


@given(st.text(max_size=8))
def test_any_text_is_a_usable_device_or_an_error_of_ours(name):
    try:
        device = resolve(name)
    except IsingflowError:
        return
    assert torch.zeros(1, device=device).device.type == device.type
