"""The C++ runner: models of our shape and of a stock Llama's, on a CPU, without torch.

source/      the library: kernels for several processors, the forward pass, the sampler
build.py     the library is built, once, where it does not come with the package
c_functions.py   its functions, for Python
runner.py    `NativeRunner`: the engine's `Runner`
"""
