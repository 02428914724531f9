"Devices that this machine lacks, for the tests."
import torch


class OnApple(torch.Tensor):
    "A tensor on a device that has no float64: nothing there may be made of that type before it has come to the CPU."
    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        if function is torch.Tensor.cpu: return args[0].as_subclass(torch.Tensor).clone()
        out = super().__torch_function__(function, types, args, kwargs or {})
        if isinstance(out, torch.Tensor) and out.dtype == torch.float64: raise TypeError('no float64 here')
        return out
