from __future__ import annotations

import pytest
import torch

from tallyformer.training.hardware import (
    GPU_PEAK_TFLOPS,
    Peak,
    PeakMemory,
    Usage,
    gpu_peak_tflops,
    peak_flops,
    peak_gpu_mb,
)

CPU = torch.device("cpu")
DEVICES = {
    "NVIDIA GB200": 2500,
    "NVIDIA B200": 2250,
    "NVIDIA GH200 480GB": 989,
    "NVIDIA H200": 989,
    "NVIDIA H200 NVL": 835,
    "NVIDIA H100 80GB HBM3": 989,
    "NVIDIA H100 NVL": 835,
    "NVIDIA H100 PCIe": 756,
    "NVIDIA A100-SXM4-80GB": 312,
    "NVIDIA A100 80GB PCIe": 312,
    "A100-PCIE-40GB": 312,
    "NVIDIA A30": 165,
    "NVIDIA A40": 150,
    "NVIDIA A10": 125,
    "NVIDIA A10G": 70,
    "NVIDIA RTX A6000": 155,
    "NVIDIA RTX A5000": 111,
    "NVIDIA RTX A4000": 77,
    "NVIDIA RTX 6000 Ada Generation": 364,
    "NVIDIA L40S": 362,
    "NVIDIA L40": 181,
    "NVIDIA L4": 121,
    "Tesla V100-SXM2-32GB": 125,
    "Tesla V100-PCIE-16GB": 112,
    "Tesla T4": 65,
    "NVIDIA GeForce RTX 5090": 210,
    "NVIDIA GeForce RTX 4090": 165,
    "NVIDIA GeForce RTX 3090": 71,
}
OTHERS = [
    "NVIDIA A100-SXM4-40GB MIG 1g.5gb",
    "NVIDIA A10M",
    "NVIDIA A16",
    "NVIDIA T400 4GB",
    "NVIDIA GeForce RTX 3090 Ti",
    "NVIDIA GeForce RTX 4090 D",
    "NVIDIA GeForce RTX 4090 Laptop GPU",
    "NVIDIA GeForce RTX 4060",
    "Quadro RTX 6000",
    "Tesla V100S-PCIE-32GB",
]


@pytest.mark.parametrize("name", DEVICES)
def test_a_device_has_its_own_peak_and_no_neighbours(name):
    assert gpu_peak_tflops(name) == DEVICES[name]


def test_every_entry_of_the_table_has_a_device():
    assert {gpu_peak_tflops(name) for name in DEVICES} == set(GPU_PEAK_TFLOPS.values())
    assert len(GPU_PEAK_TFLOPS) == len(DEVICES) - 2  # three names of the A100


@pytest.mark.parametrize("name", OTHERS)
def test_a_device_that_is_not_in_the_table_is_not_taken_for_one_that_is(name):
    assert gpu_peak_tflops(name) is None


def test_a_load_that_cannot_be_asked_for_is_unknown():
    """On a machine without a GPU, torch and the driver's library raise errors of their own."""
    device = torch.device("cuda", 99)
    from tallyformer.training.hardware import _gpu_percent

    assert _gpu_percent(device) is None


def test_a_cpu_has_no_gpu_numbers():
    found = Usage(CPU).look()
    assert found["gpu_percent"] is None and found["gpu_memory_mb"] is None
    assert peak_gpu_mb(CPU) is None


def test_the_memory_of_a_process_is_more_than_what_it_holds():
    peak = PeakMemory()
    held = torch.ones(50_000_000 // 4)
    assert peak.megabytes() > held.nbytes / 1e6


def test_the_peak_of_a_cpu_is_measured():
    assert 1e8 < peak_flops(CPU, torch.float32) < 1e14


def test_no_share_of_the_peak_is_above_one():
    peak = Peak(CPU, torch.float32)
    measured = peak.flops
    assert peak.share(measured / 4) == 0.25
    assert peak.share(3 * measured) == 1
    assert peak.share(measured) == pytest.approx(1 / 3)


def test_a_peak_that_was_measured_on_a_busy_machine_is_corrected_and_a_high_one_kept():
    now = 0.0
    peak = Peak(CPU, torch.float32, lambda: now)
    peak.flops = 1.0
    peak.look()
    assert peak.flops == 1.0
    now = 61.0
    peak.look()
    assert peak.flops > 1e8
    peak.flops = 1e20
    now = 122.0
    peak.look()
    assert peak.flops == 1e20
