"""Muon (Jordan et al., 2024): momentum, then every weight matrix's update is made orthogonal, so
that rare directions learn as fast as common ones.

For the few thousand steps that a CPU affords it reaches a given loss in clearly fewer pictures than
AdamW. Vectors, norms and the layers at the network's two ends stay with AdamW, as its authors
advise.
"""

import torch


def orthogonal(matrix, rounds=4):
    """The nearest thing to U·Vᵀ of `matrix` [m, n] that a few bf16 matrix products can reach
    (quintic Newton–Schulz)."""
    a, b, c = 3.4445, -4.7750, 2.0315
    x = matrix.bfloat16()
    tall = x.shape[0] > x.shape[1]
    x = x.T if tall else x
    x = x / (x.norm() + 1e-7)
    for _ in range(rounds):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x.T if tall else x).float()


class Exchange:
    """How workers with equal gradients divide the matrices among them: each fills its part of
    `buffer` (shared memory), all `wait`, all read."""

    def __init__(self, rank, workers, buffer, wait):
        self.rank, self.workers, self.buffer, self.wait = rank, workers, buffer, wait

    def mine(self, matrices):
        """Which of the matrices fall to this worker: the dearest go first, each to whoever has
        least to do."""
        cost = lambda i: min(matrices[i].flatten(1).shape) * matrices[i].numel()
        load, chosen = [0] * self.workers, set()
        for i in sorted(range(len(matrices)), key=cost, reverse=True):
            worker = load.index(min(load))
            load[worker] += cost(i)
            if worker == self.rank:
                chosen.add(i)
        return chosen


class Muon(torch.optim.Optimizer):
    """Convolutions count as matrices of outputs × (inputs · kernel). The update's entries have RMS
    ≈ 0.2, so rates suit AdamW's habits."""

    def __init__(self, parameters, lr, momentum=0.95, weight_decay=0.01, exchange=None):
        super().__init__(list(parameters), {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        self.matrices = self.param_groups[0]["params"]
        size = sum(p.numel() for p in self.matrices)
        self.exchange = exchange or Exchange(0, 1, torch.empty(size), lambda: None)
        self.updates = self.exchange.buffer[:size].split([p.numel() for p in self.matrices])
        self.mine = self.exchange.mine(self.matrices)

    @torch.no_grad()
    def step(self):
        group = self.param_groups[0]
        for i, (p, update) in enumerate(zip(self.matrices, self.updates)):
            state = self.state[p]
            if "momentum" not in state:
                state["momentum"] = torch.zeros_like(p.grad)
            state["momentum"].lerp_(p.grad, 1 - group["momentum"])
            if i in self.mine:
                ahead = p.grad.lerp(state["momentum"], group["momentum"]).flatten(1)
                update.copy_((orthogonal(ahead) * (0.2 * max(ahead.shape) ** 0.5)).flatten())
        self.exchange.wait()
        for p, update in zip(self.matrices, self.updates):
            p.mul_(1 - group["lr"] * group["weight_decay"])
            p.sub_(update.view(p.shape), alpha=group["lr"])


class StackedMuon(torch.optim.Optimizer):
    """The same for a card, where what counts is how few operations are begun: matrices of one shape
    are made orthogonal together."""

    def __init__(self, parameters, lr, momentum=0.95, weight_decay=0.01):
        super().__init__(list(parameters), {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        self.matrices = self.param_groups[0]["params"]
        self.stacks = {}
        for i, p in enumerate(self.matrices):
            self.stacks.setdefault(tuple(sorted(as_matrix(p).shape)), []).append(i)

    @torch.no_grad()
    def step(self):
        group = self.param_groups[0]
        gradients = [p.grad for p in self.matrices]
        for p in self.matrices:
            if "momentum" not in self.state[p]:
                self.state[p]["momentum"] = torch.zeros_like(p.grad)
        momenta = [self.state[p]["momentum"] for p in self.matrices]
        torch._foreach_lerp_(momenta, gradients, 1 - group["momentum"])
        ahead = torch._foreach_lerp(gradients, momenta, group["momentum"])
        updates = [None] * len(ahead)
        for (_, longer), members in self.stacks.items():
            wide = [wide_of(as_matrix(ahead[i])) for i in members]
            for i, update in zip(members, (orthogonal_stack(torch.stack(wide)) * (0.2 * longer**0.5)).unbind()):
                p = self.matrices[i]
                matrix = update if as_matrix(p).shape == update.shape else update.T
                updates[i] = matrix.unflatten(1, (*p.shape[2:], p.shape[1])).permute(0, 3, 1, 2) if p.ndim == 4 else matrix
        torch._foreach_mul_(self.matrices, 1 - group["lr"] * group["weight_decay"])
        torch._foreach_add_(self.matrices, updates, alpha=-group["lr"])


def as_matrix(p):
    """Outputs × (kernel · inputs): a view of a channels-last convolution. The columns' order is all
    the same to `orthogonal`."""
    return p.permute(0, 2, 3, 1).flatten(1) if p.ndim == 4 else p.flatten(1)


def wide_of(matrix):
    return matrix.T if matrix.shape[0] > matrix.shape[1] else matrix


def orthogonal_stack(matrices, rounds=4):
    """`orthogonal` for matrices [N, m, n], none taller than wide."""
    a, b, c = 3.4445, -4.7750, 2.0315
    x = (matrices / (torch.linalg.vector_norm(matrices, dim=(1, 2), keepdim=True) + 1e-7)).bfloat16()
    for _ in range(rounds):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.float()


def optimisers(network, exchange=None, ends=("conv_in", "conv_out"), stacked=False):
    """(Muon for the inner weight matrices, AdamW for the rest). Their rates are set by the caller
    before each step."""
    matrices, rest = [], []
    for name, p in network.named_parameters():
        inner = p.ndim >= 2 and min(p.flatten(1).shape) > 1 and not name.startswith(ends)
        (matrices if inner else rest).append(p)
    muon = StackedMuon(matrices, lr=1e-3) if stacked else Muon(matrices, lr=1e-3, exchange=exchange)
    return muon, torch.optim.AdamW(rest, lr=1e-3, betas=(0.9, 0.99), weight_decay=0.0, fused=True)
