"""The kit's second device, registered as soon as this is imported: this folder's tests have a process of their own."""

from xaibench.testing.second_device import DEVICE, SecondDevice, Tagged, plain, register, to_second

register()

__all__ = ["DEVICE", "SecondDevice", "Tagged", "plain", "to_second"]
