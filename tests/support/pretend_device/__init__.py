"""A pretend GPU: tensors in memory of the CPU that say ``cuda:0`` and obey CUDA's rules, and a ledger of their work.

    with pretend_cuda() as ledger:  # torch.cuda.is_available() in here, with two devices
        x = torch.arange(3.0, device="cuda")
        x + torch.arange(3.0)  # RuntimeError: Expected all tensors to be on the same device
        ledger.reset()
        bool(x.any())
        ledger.waits, ledger.launches  # Counter({'item': 1}), Counter({'aten::any': 1})

It shows tensors and random number generators on the wrong device, waits of the host, launches of kernels and work in
double precision. It cannot show rounding, races of atomic sums, memory or speed.
"""

from pretend_device.context import pretend_cuda
from pretend_device.ledger import Ledger
from pretend_device.tensors import PretendTensor

__all__ = ["Ledger", "PretendTensor", "pretend_cuda"]
