"""Random weights of a small SAM and of CycleISP, in the structure of the published files."""

import torch

from common import owned, written_whole
from networks.cycleisp import CycleISP
from tools.extract.masks import toy_sam


def write_toys(opt):
    """sam_toy.pth and cycleisp_toy.pth."""
    torch.manual_seed(opt.seed)
    denoiser = {f"module.{name}": value for name, value in CycleISP().state_dict().items()}
    toys = {"sam_toy.pth": toy_sam().state_dict(), "cycleisp_toy.pth": {"state_dict": denoiser}}
    with owned(opt.output):
        for name, content in toys.items():
            with written_whole(opt.output / name, binary=True) as file:
                torch.save(content, file)
            print(f"-> {opt.output / name}")
    print("random weights: they show that the commands run, and nothing else")
