"""A wheel that holds the native library is for one kind of machine, and for any Python 3.

`make wheel` puts the library in place beforehand; without it the wheel is for any machine, and the
library is built where it is first used. Everything else is in pyproject.toml.
"""

from pathlib import Path

from setuptools import Distribution, setup
from setuptools.command.bdist_wheel import bdist_wheel

SHIPPED = Path(__file__).parent / "src/tallyformer/inference/native/shipped"


class MaybeNative(Distribution):
    """Is for one kind of machine where the library is in place."""

    def has_ext_modules(self) -> bool:
        """Whether it holds compiled code."""
        return any(SHIPPED.glob("*.so"))


class Wheel(bdist_wheel):
    """Names the machine, but no version of Python: the library is loaded with ctypes."""

    def get_tag(self) -> tuple[str, str, str]:
        """Python, binary interface, machine."""
        return "py3", "none", super().get_tag()[2]


setup(distclass=MaybeNative, cmdclass={"bdist_wheel": Wheel})
